"""AVIF: its size, and how its picture is to be cropped, turned and mirrored, which OpenCV leaves to others.

ISO/IEC 23008-12, 6.5, and ISO/IEC 23000-22 (MIAF), 7.3.6.7: `clap`, `irot` and `imir` change the picture, in the order
in which they are associated with it, and must be applied; its EXIF orientation is for information only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from stages.frame import Frame
from stages.opencv import cv2
from stages.pictures import av1, avif_data
from stages.pictures.containers import boxes, inside

_BRANDS = frozenset({b"avif", b"avis"})
_ENTRY = 78  # bytes of a VisualSampleEntry before its boxes
_MOST_ASSOCIATIONS = 4096
_TURNS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}
_MONOCHROME, _FULL_RANGE = 0x10, 0x80
_EXPANDED = np.clip(np.rint((np.arange(256) - 16) * 255 / 219), 0, 255).astype(np.uint8)  # of luma in limited range
_FLIPS = {0: 0, 1: 1}  # axis of `imir`: 0 exchanges top and bottom, 1 left and right; as cv2.flip counts


def is_avif(start: bytes) -> bool:
    """Whether a brand of the `ftyp` box names AVIF: the major one, or a compatible one, as of HEIF files (mif1)."""
    if start[4:8] != b"ftyp":
        return False
    brands = start[8:12] + start[16 : int.from_bytes(start[:4], "big")]
    return not _BRANDS.isdisjoint(brands[at : at + 4] for at in range(0, len(brands), 4))


def size(payload: memoryview) -> tuple[int, int]:
    """The largest size that an item (`ispe`), a track of a sequence or the coded data declares, before any change."""
    sizes = [*_item_sizes(payload), *(struct.unpack_from(">HH", entry, 24) for entry in _entries(payload))]
    sizes += _track_sizes(payload)
    if not sizes:
        raise ValueError("no size")
    sizes += [av1.size(data) for data in avif_data.coded(payload)]
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def transformed(payload: memoryview, frame: Frame) -> Frame:
    """`frame`, uint8 [h, w, 3], as its file wants it cropped, turned and mirrored. Raises ValueError, struct.error."""
    properties = list(_properties(payload))
    if _is_limited_gray(properties):
        frame = cv2.LUT(frame, _EXPANDED)  # type: ignore[assignment]
    for kind, contents in properties:
        if kind == b"clap":
            frame = _cropped(frame, contents)
        elif kind == b"irot" and contents[0] & 3:
            frame = cv2.rotate(frame, _TURNS[contents[0] & 3])  # type: ignore[assignment]  # the stubs forget dtypes
        elif kind == b"imir":
            frame = cv2.flip(frame, _FLIPS[contents[0] & 1])  # type: ignore[assignment]
    return frame


def _is_limited_gray(properties: list[tuple[bytes, memoryview]]) -> bool:
    """Whether it has luma alone (av1C), of 16 to 235 (colr): OpenCV takes that as it is."""
    gray = any(kind == b"av1C" and contents[2] & _MONOCHROME for kind, contents in properties)
    return gray and any(
        kind == b"colr" and bytes(contents[:4]) == b"nclx" and not contents[10] & _FULL_RANGE
        for kind, contents in properties
    )


def _cropped(frame: Frame, contents: memoryview) -> Frame:
    """Width, height and the offset of the centre, four fractions (ISO/IEC 14496-12, 12.1.4), to whole pixels."""
    wide, wide_by, high, high_by, across, across_by, down, down_by = struct.unpack_from(">4IiIiI", contents)
    if 0 in (wide_by, high_by, across_by, down_by):
        raise ValueError("a fraction over nothing")
    width, height = wide / wide_by, high / high_by
    left = round((frame.shape[1] - width) / 2 + across / across_by)
    top = round((frame.shape[0] - height) / 2 + down / down_by)
    right, bottom = left + round(width), top + round(height)
    if not (0 <= left < right <= frame.shape[1] and 0 <= top < bottom <= frame.shape[0]):
        raise ValueError("a clean aperture outside the picture")
    return np.ascontiguousarray(frame[top:bottom, left:right])


def _properties(payload: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The properties of the picture that OpenCV decodes: of the first track of a sequence, else of the primary item."""
    entries = list(_entries(payload)) if bytes(payload[8:12]) == b"avis" else []
    if entries:
        yield from boxes(entries[0][_ENTRY:])
        return
    meta = inside(payload, b"meta")
    properties = list(boxes(inside(meta, b"iprp", b"ipco")))
    for index in _associations(meta, _primary(meta)):
        if not 0 < index <= len(properties):
            raise ValueError("a property that is not there")
        yield properties[index - 1]


def _primary(meta: memoryview) -> int:
    """Number of the primary item."""
    box = inside(meta, b"pitm")
    return int(struct.unpack_from(">H" if box[0] == 0 else ">I", box, 4)[0])


def _associations(meta: memoryview, item: int) -> Iterator[int]:
    """Indices, from 1, of an item's properties, in their order (`ipma`)."""
    for kind, box in boxes(inside(meta, b"iprp")):
        if kind != b"ipma":
            continue
        wide, long = box[3] & 1, box[0] >= 1
        (count,) = struct.unpack_from(">I", box, 4)
        position = 8
        for _ in range(min(count, _MOST_ASSOCIATIONS)):
            (number,) = struct.unpack_from(">I" if long else ">H", box, position)
            position += 4 if long else 2
            several = box[position]
            if number == item:
                indices = struct.unpack_from(f">{several}{'H' if wide else 'B'}", box, position + 1)
                yield from (index & (0x7FFF if wide else 0x7F) for index in indices)
                return
            position += 1 + several * (2 if wide else 1)


def _item_sizes(payload: memoryview) -> list[tuple[int, ...]]:
    try:
        properties = inside(payload, b"meta", b"iprp", b"ipco")
    except ValueError:
        return []  # a sequence may have tracks only
    return [struct.unpack_from(">II", box, 4) for kind, box in boxes(properties) if kind == b"ispe"]


def _track_sizes(payload: memoryview) -> list[tuple[int, int]]:
    """The sizes that tracks are shown at (`tkhd`, ISO/IEC 14496-12, 8.3.2), to which frames are scaled."""
    sizes = []
    for track in _tracks(payload):
        header = inside(track, b"tkhd")
        width, height = struct.unpack_from(">II", header, 88 if header[0] == 1 else 76)  # in 16.16 fixed point
        sizes.append((width >> 16, height >> 16))
    return sizes


def _tracks(payload: memoryview) -> Iterator[memoryview]:
    try:
        movie = inside(payload, b"moov")
    except ValueError:
        return
    yield from (track for kind, track in boxes(movie) if kind == b"trak")


def _entries(payload: memoryview) -> Iterator[memoryview]:
    """Sample descriptions of AV1 in all tracks."""
    for track in _tracks(payload):
        table = inside(track, b"mdia", b"minf", b"stbl", b"stsd")
        yield from (entry for name, entry in boxes(table[8:]) if name == b"av01")
