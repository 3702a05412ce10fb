"""The formats that are boxes in boxes: TIFF directories, and the boxes of JPEG 2000 and AVIF. All walks are bounded."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

_MOST_ENTRIES = 1024
_MOST_VALUES = 8  # of one entry that are read
_MOST_BOXES = 1024  # side by side
_TIFF_VALUES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # BYTE, SHORT, LONG and BigTIFF's LONG8

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class Entry(NamedTuple):
    """A tag of a TIFF directory: its first values, and where and how they are stored."""

    values: tuple[int, ...]
    position: int
    form: str  # for `struct`, of one value


def tiff_size(payload: memoryview) -> tuple[int, int]:
    """ImageWidth and ImageLength of the first directory, or those of its tiles, if larger: one is decoded whole."""
    tags = tiff_tags(payload, frozenset({256, 257, 322, 323}))
    if not tags.keys() >= {256, 257}:
        raise ValueError("no size in the first directory")
    if not (tags[256] and tags[257]):
        return 0, 0
    return max(tags[256], tags.get(322, 0)), max(tags[257], tags.get(323, 0))


def tiff_tags(payload: memoryview, wanted: frozenset[int]) -> dict[int, int]:
    """The first value of each wanted tag in the first directory of a TIFF or BigTIFF structure."""
    return {tag: entry.values[0] for tag, entry in tiff_entries(payload, wanted).items() if entry.values}


def tiff_entries(payload: memoryview, wanted: frozenset[int]) -> dict[int, Entry]:
    """Each wanted tag in the first directory of a TIFF or BigTIFF structure; without values where they are no integers.

    Raises struct.error where something lies outside, ValueError where it is not TIFF.
    """
    if bytes(payload[:4]) not in TIFF:
        raise ValueError("not TIFF")
    order = "<" if payload[0] == 0x49 else ">"
    big = 43 in bytes(payload[2:4])
    offset = order + ("Q" if big else "I")
    (start,) = struct.unpack_from(offset, payload, 8 if big else 4)
    if start > len(payload):
        raise ValueError("the directory lies outside")
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), payload, start)
    first, step, inline = (start + 8, 20, 12) if big else (start + 2, 12, 8)
    found: dict[int, Entry] = {}
    for entry in islice(range(first, first + step * count, step), _MOST_ENTRIES):
        tag, kind = struct.unpack_from(order + "HH", payload, entry)
        if tag not in wanted or tag in found:
            continue
        (number,) = struct.unpack_from(offset, payload, entry + 4)
        form = _TIFF_VALUES.get(kind, "B")
        position = entry + inline
        if number * struct.calcsize("=" + form) > step - inline:
            (position,) = struct.unpack_from(offset, payload, position)
        values = f"{order}{min(number, _MOST_VALUES) if kind in _TIFF_VALUES else 0}{form}"
        found[tag] = Entry(_unpacked(values, payload, position), position, order + form)
    return found


def _unpacked(form: str, payload: memoryview, position: int) -> tuple[int, ...]:
    if position > len(payload):
        raise ValueError("values lie outside")
    return struct.unpack_from(form, payload, position)


def inside(payload: memoryview, *path: bytes) -> memoryview:
    """The contents of the first box of each kind of the path within the one before. Raises ValueError."""
    for wanted in path:
        payload = next((contents for kind, contents in boxes(payload) if kind == wanted), memoryview(b""))
        if not payload:
            raise ValueError("a box is missing")
        if wanted == b"meta":
            payload = payload[4:]  # version and flags
    return payload


def boxes(payload: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Boxes of the ISO base media file format: 32-bit length, kind, contents; length 1: 64-bit, 0: to the end.

    Raises ValueError or struct.error where they are broken, or too many to be looked at.
    """
    position = 0
    for _ in range(_MOST_BOXES):
        if position + 8 > len(payload):
            return
        length, kind = struct.unpack_from(">I4s", payload, position)
        start = position + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", payload, start)
            start += 8
        end = position + length if length else len(payload)
        if end < start:
            raise ValueError("a box shorter than its header")
        yield kind, payload[start:end]
        position = end
    raise ValueError("too many boxes")
