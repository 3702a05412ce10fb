"""Where the coded data of an AVIF lies: of every AV1 item, and of the first sample of every AV1 track.

ISO/IEC 14496-12, 8.11.3 (iloc), 8.11.6 (iinf) and 8.7 (sample tables).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from stages.pictures.containers import boxes, inside

_MOST_ITEMS = 1024
_IN_FILE, _IN_IDAT = 0, 1


def coded(payload: memoryview) -> Iterator[memoryview]:
    """The OBUs of each. Raises ValueError, struct.error or IndexError where a box is broken or names no data."""
    top = {kind: contents for kind, contents in boxes(payload) if kind in (b"meta", b"moov")}
    if b"meta" in top:
        yield from _items(payload, top[b"meta"][4:])
    if b"moov" in top:
        for kind, track in boxes(top[b"moov"]):
            if kind == b"trak":
                yield from _first_samples(payload, inside(track, b"mdia", b"minf", b"stbl"))


def _items(payload: memoryview, meta: memoryview) -> Iterator[memoryview]:
    pictures = {number for number, kind in _kinds(inside(meta, b"iinf")) if kind == b"av01"}
    for number, method, extents in _locations(inside(meta, b"iloc")):
        if number not in pictures:
            continue
        if method not in (_IN_FILE, _IN_IDAT):
            raise ValueError("data within other items")
        source = payload if method == _IN_FILE else inside(meta, b"idat")
        parts = [source[start : start + length] if length else source[start:] for start, length in extents]
        yield parts[0] if len(parts) == 1 else memoryview(b"".join(parts))


def _kinds(box: memoryview) -> Iterator[tuple[int, bytes]]:
    """Number and type of every item."""
    for kind, entry in boxes(box[6 if box[0] == 0 else 8 :]):
        if kind == b"infe" and entry[0] >= 2:
            wide = entry[0] >= 3
            (number,) = struct.unpack_from(">I" if wide else ">H", entry, 4)
            yield number, bytes(entry[10 if wide else 8 :][:4])


def _locations(box: memoryview) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Number, construction method, and the extents, start and length, of every item."""
    version = box[0]
    sizes = (box[4] >> 4, box[4] & 15, box[5] >> 4, box[5] & 15 if version else 0)  # offset, length, base, index
    reader = _Reader(box, 6)
    for _ in range(reader.take_count(4 if version == 2 else 2)):
        number = reader.take(4 if version == 2 else 2)
        method = reader.take(2) & 15 if version else _IN_FILE
        reader.take(2)
        base = reader.take(sizes[2])
        extents = []
        for _ in range(reader.take_count(2)):
            reader.take(sizes[3])
            extents.append((base + reader.take(sizes[0]), reader.take(sizes[1])))
        yield number, method, extents


class _Reader:
    """Big-endian numbers, one after the other."""

    def __init__(self, box: memoryview, position: int) -> None:
        self._box = box
        self._position = position

    def take(self, size: int) -> int:
        """The next number of `size` bytes; 0 for no bytes. Raises ValueError at the end."""
        end = self._position + size
        if end > len(self._box):
            raise ValueError("the box ends early")
        number = int.from_bytes(self._box[self._position : end])
        self._position = end
        return number

    def take_count(self, size: int) -> int:
        """The next number, of things to follow. Raises ValueError where they are too many to be looked at."""
        count = self.take(size)
        if count > _MOST_ITEMS:
            raise ValueError("too many items")
        return count


def _first_samples(payload: memoryview, table: memoryview) -> Iterator[memoryview]:
    """The first sample, where the track holds AV1."""
    if not any(kind == b"av01" for kind, _ in boxes(inside(table, b"stsd")[8:])):
        return
    sizes = inside(table, b"stsz")
    size, count = struct.unpack_from(">II", sizes, 4)
    if not size and count:
        (size,) = struct.unpack_from(">I", sizes, 12)
    large = any(kind == b"co64" for kind, _ in boxes(table))
    (start,) = struct.unpack_from(">Q" if large else ">I", inside(table, b"co64" if large else b"stco"), 8)
    yield payload[start : start + size]
