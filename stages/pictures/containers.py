"""Sizes out of the formats that are boxes in boxes: TIFF directories, AVIF and JPEG 2000. All walks are bounded."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice

_MOST_ENTRIES = 1024
_MOST_BOXES = 256
_TIFF_VALUES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # BYTE, SHORT, LONG and BigTIFF's LONG8

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
AVIF = (b"ftypavif", b"ftypavis")  # from the fifth byte
JP2 = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")  # in boxes, bare


def tiff_size(payload: memoryview) -> tuple[int, int]:
    """ImageWidth and ImageLength of the first directory."""
    tags = tiff_tags(payload, frozenset({256, 257}))
    if len(tags) < 2:
        raise ValueError("no size in the first directory")
    return tags[256], tags[257]


def tiff_tags(payload: memoryview, wanted: frozenset[int]) -> dict[int, int]:
    """The first value of each wanted tag in the first directory of a TIFF or BigTIFF structure."""
    if bytes(payload[:4]) not in TIFF:
        raise ValueError("not TIFF")
    order = "<" if payload[0] == 0x49 else ">"
    big = 43 in bytes(payload[2:4])
    (start,) = struct.unpack_from(order + ("Q" if big else "I"), payload, 8 if big else 4)
    if start > len(payload):
        raise ValueError("the directory lies outside")
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), payload, start)
    first, step, inline = (start + 8, 20, 12) if big else (start + 2, 12, 8)
    found: dict[int, int] = {}
    for entry in islice(range(first, first + step * count, step), _MOST_ENTRIES):
        tag, kind = struct.unpack_from(order + "HH", payload, entry)
        if tag in wanted and tag not in found and kind in _TIFF_VALUES:
            (found[tag],) = struct.unpack_from(order + _TIFF_VALUES[kind], payload, entry + inline)
    return found


def avif_size(payload: memoryview) -> tuple[int, int]:
    """The largest `ispe` (image spatial extents, ISO/IEC 23008-12) of any item."""
    if bytes(payload[8:12]) == b"avis":
        raise ValueError("an AVIF sequence declares its size per sample")
    properties = _inside(_inside(_inside(payload, b"meta", 4), b"iprp", 0), b"ipco", 0)
    sizes = [struct.unpack_from(">II", box, 4) for kind, box in _boxes(properties) if kind == b"ispe"]
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def jp2_size(payload: memoryview) -> tuple[int, int]:
    """Extent of the reference grid in the SIZ segment (ITU-T T.800, A.5.1): what the decoder allocates from."""
    boxed, bare = JP2
    stream = _inside(payload, b"jp2c", 0) if bytes(payload[:12]) == boxed else payload
    if bytes(stream[:4]) != bare:
        raise ValueError("no code stream")
    right, bottom, left, top = struct.unpack_from(">IIII", stream, 8)
    return right - left, bottom - top


def _inside(payload: memoryview, wanted: bytes, skip: int) -> memoryview:
    """The contents of the first box of that kind, less `skip` bytes of version and flags."""
    for kind, box in _boxes(payload):
        if kind == wanted:
            return box[skip:]
    raise ValueError("a box is missing")


def _boxes(payload: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Boxes of the ISO base media file format: 32-bit length, kind, contents; length 1: 64-bit, 0: to the end."""
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
