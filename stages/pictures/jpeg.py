"""The JPEG marker stream (ITU-T T.81, annex B) and the one EXIF tag that matters, read without a decoder."""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from stages.pictures import exif

# As libjpeg looks for markers: whatever lies between segments is skipped, any run of FF may precede the code.
_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
# Within coded data, where FF 00 is a byte of it, restart markers belong to it and what is no marker is passed over.
_NEXT = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])", re.DOTALL)
_EMPTY = re.compile(rb"(?:\xff\xd8\xff\xd9)+")
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HIERARCHICAL = frozenset({0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF})
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
_EOI, _SOS, _APP1, _JPEG_LS = 0xD9, 0xDA, 0xE1, 0xF7
_MOST_SEGMENTS = 4096
_COEFFICIENTS = 64


class Headline(NamedTuple):
    """What the segments before the first scan say."""

    width: int
    height: int
    components: int
    precision: int  # bits per sample
    orientation: int  # EXIF, 1 to 8
    process: int  # the frame header's marker code
    many_scans: bool  # progressive, or one scan per component: any number of scans may follow
    scan: int  # where the first scan's header begins, behind its marker

    @property
    def unsupported(self) -> str:
        """What no decoder here reads; "" for a picture that ought to be decoded."""
        if self.process == _JPEG_LS:
            return "JPEG-LS compression"
        if self.process in _HIERARCHICAL:
            return "hierarchical JPEG"
        if self.precision != 8:
            return f"JPEG with {self.precision} bits per sample"
        if self.components not in (1, 3, 4):
            return f"JPEG with {self.components} components"
        return ""


def start(payload: memoryview) -> memoryview:
    """The payload without the empty pictures that some hardware encoders put before the first one."""
    empty = _EMPTY.match(payload)
    return payload if empty is None or empty.end() == len(payload) else payload[empty.end() :]


def size(payload: memoryview) -> tuple[int, int]:
    """Width and height of the frame header. Raises ValueError or struct.error where there is none."""
    for code, segment, _ in _segments(payload):
        if code in _FRAMES or code == _JPEG_LS:
            height, width = struct.unpack_from(">HH", segment, 1)
            return width, height
    raise ValueError("no frame header before the first scan")


def headline(payload: memoryview) -> Headline:
    """All segments up to the first scan. Raises ValueError or struct.error where they are broken."""
    precision = width = height = components = 0
    orientation, frame = None, None
    for code, segment, position in _segments(payload):
        if (code in _FRAMES or code == _JPEG_LS) and frame is None:
            frame = code
            precision, height, width, components = struct.unpack_from(">BHHB", segment, 0)
        elif code == _APP1 and orientation is None and exif.is_prefixed(segment):
            orientation = exif.orientation(segment)
        elif code == _SOS and frame is not None:
            many = frame in _PROGRESSIVE or segment[0] < components
            return Headline(width, height, components, precision, orientation or 1, frame, many, position)
    raise ValueError("no scan")


class Scans(NamedTuple):
    """What follows the segments before the first scan."""

    number: int
    end: int | None  # behind the end marker; None where there is none
    complete: bool  # every coefficient of every component is there to its last bit


def scans(payload: memoryview, head: Headline, most: int) -> Scans:
    """Walk from the first scan to the end marker, beyond which nothing counts, but not over more than `most` + 1."""
    unfinished: dict[int, list[int]] = {}
    number, position, code = 0, head.scan, _SOS
    with contextlib.suppress(struct.error, IndexError):  # ends within a segment
        for _ in range(4 * _MOST_SEGMENTS):
            segment = _segment(payload, position)
            position += len(segment) + 2
            if code == _SOS:
                number += 1
                _note(unfinished, segment, head.process)
            marker = _NEXT.search(payload, position)
            if marker is None or number > most:
                break
            code, position = marker[1][0], marker.end()
            if code == _EOI:
                return Scans(number, position, _complete(unfinished, head))
    return Scans(number, None, _complete(unfinished, head))


def _note(unfinished: dict[int, list[int]], segment: memoryview, process: int) -> None:
    """Keep, per component, how many low bits of each coefficient are still missing (T.81, B.2.3 and G.1.1.1.1)."""
    number = segment[0]
    first, last, approximation = struct.unpack_from("3B", segment, 1 + 2 * number)
    if process not in _PROGRESSIVE:
        first, last, approximation = 0, _COEFFICIENTS - 1, 0
    for index in range(number):
        missing = unfinished.setdefault(segment[1 + 2 * index], [16] * _COEFFICIENTS)
        for coefficient in range(first, min(last, _COEFFICIENTS - 1) + 1):
            missing[coefficient] = approximation & 0x0F


def _complete(unfinished: dict[int, list[int]], head: Headline) -> bool:
    return len(unfinished) >= head.components and not any(any(missing) for missing in unfinished.values())


def _segment(payload: memoryview, position: int) -> memoryview:
    """The contents of the segment whose length stands at `position`."""
    (length,) = struct.unpack_from(">H", payload, position)
    return payload[position + 2 : position + length]


def _segments(payload: memoryview) -> Iterator[tuple[int, memoryview, int]]:
    """Marker codes, their contents and where these begin, up to and including the first scan's header."""
    position = 2
    for _ in range(_MOST_SEGMENTS):
        marker = _MARKER.search(payload, position)
        if marker is None or marker[1][0] == _EOI:
            return
        code, position = marker[1][0], marker.end()
        if code in _BARE:
            continue
        (length,) = struct.unpack_from(">H", payload, position)
        yield code, payload[position + 2 : position + length], position
        if code == _SOS:
            return
        position += max(2, length)
