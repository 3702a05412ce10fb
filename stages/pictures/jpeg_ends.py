"""JPEG pictures without their end marker, as some cameras send them: whether only that is missing."""

from __future__ import annotations

import re

import simplejpeg

from stages.pictures import jpeg

_EOI = b"\xff\xd9"
_FILM = re.compile(rb"\0\0\0.ftyp", re.DOTALL)  # what a motion photo has behind its picture
_MOST_SCANS = 100
_ZEROS_OF_DATA = 2  # bytes: coded data may itself end in so many zeros


def ended(payload: memoryview, head: jpeg.Headline) -> memoryview | None:
    """The payload itself where it has an end marker; a copy with one where only that is missing; else None.

    A buffer that was filled up with zeros, and a film that was appended, are not the picture's.
    """
    film = _FILM.search(payload, head.scan)
    part = payload if film is None else payload[: film.start()]
    found = jpeg.scans(part, head, _MOST_SCANS)
    if found.end is not None:
        return payload
    if not found.complete:
        return None
    data = bytes(part)
    stripped = data.rstrip(b"\0")
    for length in range(len(stripped), min(len(data), len(stripped) + _ZEROS_OF_DATA) + 1):
        candidate = data[:length] + _EOI
        if _is_sound(candidate, head):
            return memoryview(candidate)
    return None


def _is_sound(payload: bytes, head: jpeg.Headline) -> bool:
    """Whether libjpeg-turbo decodes it without a warning: it has one for data that ends too early."""
    color = {1: "GRAY", 3: "BGR", 4: "CMYK"}[head.components]
    try:
        simplejpeg.decode_jpeg(payload, color)
    except ValueError:
        return False
    return True
