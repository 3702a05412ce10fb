"""The EXIF orientation of a picture, wherever its format keeps it: the one reader of it.

EXIF 2.32, tag 0x0112 of the first directory. XMP and the text profiles of ImageMagick may name an orientation too;
like OpenCV and browsers we do not follow them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from stages.pictures import containers

PREFIX = b"Exif\0\0"
_TAG = 0x0112
_MOST_CHUNKS = 100_000
_HAS_EXIF = 0x08  # flag of a WebP's VP8X chunk


def is_prefixed(block: memoryview) -> bool:
    """Whether it begins as an EXIF segment of a JPEG does."""
    return bytes(block[: len(PREFIX)]) == PREFIX


def orientation(block: memoryview) -> int | None:
    """1 to 8 from a TIFF structure, with JPEG's prefix or without; None where there is none that makes sense."""
    if is_prefixed(block):
        block = block[len(PREFIX) :]
    try:
        value = containers.tiff_tags(block, frozenset({_TAG})).get(_TAG, 0)
    except (struct.error, IndexError, ValueError):
        return None
    return value if 1 <= value <= 8 else None


def png_orientation(payload: memoryview) -> int:
    """Of the first sound eXIf chunk that has one (PNG, third edition, 11.3.4.5), before the pixels or behind them."""
    for kind, contents, sum_ in _png_chunks(payload):
        if kind == b"eXIf" and zlib.crc32(contents, zlib.crc32(kind)) == sum_ and (found := orientation(contents)):
            return found
    return 1


def webp_orientation(payload: memoryview) -> int:
    """Of the EXIF chunk of an extended WebP (RFC 9649, 2.7); many writers begin it with JPEG's prefix."""
    if bytes(payload[12:16]) != b"VP8X" or not payload[20] & _HAS_EXIF:
        return 1
    for kind, contents in _webp_chunks(payload):
        if kind == b"EXIF" and (found := orientation(contents)):
            return found
    return 1


def _png_chunks(payload: memoryview) -> Iterator[tuple[bytes, memoryview, int]]:
    position = 8
    for _ in range(_MOST_CHUNKS):
        if position + 12 > len(payload):
            return
        length, kind = struct.unpack_from(">I4s", payload, position)
        contents = payload[position + 8 : position + 8 + length]
        position += 12 + length
        if position > len(payload):
            return
        yield kind, contents, struct.unpack_from(">I", payload, position - 4)[0]


def _webp_chunks(payload: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    position = 12
    for _ in range(_MOST_CHUNKS):
        if position + 8 > len(payload):
            return
        kind, length = struct.unpack_from("<4sI", payload, position)
        yield kind, payload[position + 8 : position + 8 + length]
        position += 8 + length + length % 2
