"""JPEG 2000 (ITU-T T.800): its size, and its colours, of which OpenCV knows two kinds only."""

from __future__ import annotations

import struct

import numpy as np

from stages.frame import Frame
from stages.opencv import cv2
from stages.pictures.containers import boxes, inside

BOXED, BARE = b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"
_MOST_COMPONENTS = 4  # three colours and alpha
_ENUMERATED = 1  # method of a colour specification (annex I.5.3.3) that is a number
_SRGB, _GRAY, _SYCC = 16, 17, 18
_KNOWN = frozenset({_SRGB, _GRAY, _SYCC, 20, 21})  # the last two are other kinds of RGB
_SPACES = {11: "CMY", 12: "CMYK", 13: "YCCK", 14: "CIE L*a*b*", 24: "e-sYCC"}
# OpenCV calls them blue, green and red; COLOR_YCrCb2BGR wants luma first
_LUMA_RED_BLUE = (2, 0, 1)


def size(payload: memoryview) -> tuple[int, int]:
    """Extent of the reference grid in the SIZ segment (A.5.1): what the decoder allocates from."""
    right, bottom, left, top = struct.unpack_from(">IIII", _stream(payload), 8)
    return right - left, bottom - top


def unsupported(payload: memoryview) -> str:
    """What about it is not read; "" where nothing is."""
    (components,) = struct.unpack_from(">H", _stream(payload), 40)
    if components > _MOST_COMPONENTS:
        return f"JPEG 2000 with {components} components"
    space = _space(payload)
    if space is not None and space not in _KNOWN:
        return f"JPEG 2000 with {_SPACES.get(space, f'number {space}')} colours"
    return ""


def why_refused(payload: memoryview) -> str:
    """What about a sound picture OpenCV gives no reason for when it refuses it; "" where it ought to read it."""
    stream = _stream(payload)
    (components,) = struct.unpack_from(">H", stream, 40)
    if any(step != 1 for place in range(components) for step in stream[43 + 3 * place : 45 + 3 * place]):
        return "JPEG 2000 with subsampled components"
    if any(struct.unpack_from(">II", stream, 16)):
        return "JPEG 2000 that does not begin at the origin of its grid"
    return ""


def as_rgb(payload: memoryview) -> memoryview | None:
    """A copy of a picture in luma and chroma (sYCC) that is called RGB; None where it is no such picture.

    OpenCV would convert it as television's YUV, which has other factors.
    """
    if _space(payload) != _SYCC:
        return None
    changed = memoryview(bytearray(payload))
    for color in _colors(changed)[:1]:
        struct.pack_into(">I", color, 3, _SRGB)
    return changed


def converted(frame: Frame) -> Frame:
    """BGR of luma and chroma, uint8 [h, w, 3], that were taken for red, green and blue."""
    luma_first = np.ascontiguousarray(frame[..., _LUMA_RED_BLUE])
    return cv2.cvtColor(luma_first, cv2.COLOR_YCrCb2BGR)  # type: ignore[return-value]  # the stubs forget dtypes


def _space(payload: memoryview) -> int | None:
    """The enumerated colour space; None where a profile says it, or nothing does."""
    if bytes(payload[:12]) != BOXED:
        return None
    colors = _colors(payload)
    return int(struct.unpack_from(">I", colors[0], 3)[0]) if colors and colors[0][0] == _ENUMERATED else None


def _colors(payload: memoryview) -> list[memoryview]:
    """Colour specifications; the first is the one that readers have to follow."""
    return [contents for kind, contents in boxes(inside(payload, b"jp2h")) if kind == b"colr"]


def _stream(payload: memoryview) -> memoryview:
    stream = inside(payload, b"jp2c") if bytes(payload[:12]) == BOXED else payload
    if bytes(stream[:4]) != BARE:
        raise ValueError("no code stream")
    return stream
