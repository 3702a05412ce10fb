"""The JPEG marker stream (ITU-T T.81, annex B) and the one EXIF tag that matters, read without a decoder."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from stages.pictures import containers

# As libjpeg looks for markers: whatever lies between segments is skipped, any run of FF may precede the code.
_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_SCAN = re.compile(rb"\xff\xda")
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
_APP1, _SOS, _EOI = 0xE1, 0xDA, 0xD9
_MOST_SEGMENTS = 4096


class Headline(NamedTuple):
    """What the segments before the first scan say."""

    width: int
    height: int
    components: int
    orientation: int  # EXIF, 1 to 8
    many_scans: bool  # progressive, or one scan per component: any number of scans may follow


def size(payload: memoryview) -> tuple[int, int]:
    """Width and height of the frame header. Raises ValueError or struct.error where there is none."""
    for code, segment in _segments(payload):
        if code in _FRAMES:
            height, width = struct.unpack_from(">HH", segment, 1)
            return width, height
    raise ValueError("no frame header before the first scan")


def headline(payload: memoryview) -> Headline:
    """All segments up to the first scan. Raises ValueError or struct.error where they are broken."""
    width = height = components = 0
    orientation, frame = None, None
    for code, segment in _segments(payload):
        if code in _FRAMES and frame is None:
            frame = code
            height, width, components = struct.unpack_from(">HHB", segment, 1)
        elif code == _APP1 and orientation is None and bytes(segment[:6]) == b"Exif\0\0":
            orientation = _orientation(segment[6:])
        elif code == _SOS and frame is not None:
            many = frame in _PROGRESSIVE or segment[0] < components
            return Headline(width, height, components, orientation or 1, many)
    raise ValueError("no scan")


def has_more_scans(payload: memoryview, limit: int) -> bool:
    """Whether there are more than `limit` scans; each may cost a pass over the whole picture."""
    return any(number >= limit for number, _ in enumerate(_SCAN.finditer(payload)))


def _segments(payload: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Marker codes with their contents, up to and including the first scan's header."""
    position = 2
    for _ in range(_MOST_SEGMENTS):
        marker = _MARKER.search(payload, position)
        if marker is None or marker[1][0] == _EOI:
            return
        code, position = marker[1][0], marker.end()
        if code in _BARE:
            continue
        (length,) = struct.unpack_from(">H", payload, position)
        yield code, payload[position + 2 : position + length]
        if code == _SOS:
            return
        position += max(2, length)


def _orientation(exif: memoryview) -> int:
    """EXIF 2.32 tag 0x0112 of the first directory; 1 where it is missing or makes no sense."""
    try:
        value = containers.tiff_tags(exif, frozenset({0x0112})).get(0x0112, 1)
    except (struct.error, IndexError, ValueError):
        return 1
    return value if 1 <= value <= 8 else 1
