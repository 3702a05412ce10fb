"""A payload of a known format to a frame with OpenCV, corrected where OpenCV does not follow the format."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np

from parallel_infer.errors import BadInput
from stages.frame import Frame
from stages.opencv import cv2
from stages.pictures import avif, bmp, exif, gif, headers, jp2, orientation, tiff
from stages.pictures.headers import KINDS, Format

_IEND = b"\0\0\0\0IEND\xae\x42\x60\x82"
_CONVERT = "convert it to JPEG or PNG"


def unsupported(what: str) -> BadInput:
    """The error for a sound picture of a kind that is not decoded here."""
    return BadInput(f"not supported: {what}; {_CONVERT}")


def broken(title: str) -> BadInput:
    """The error for a picture that cannot be decoded."""
    return BadInput(f"the {title} picture is truncated or corrupted")


def read(found: Format, payload: memoryview) -> Frame:
    """The pixels of a picture that is no JPEG, uint8 [h, w, 3] BGR, as its format wants it seen. Raises BadInput."""
    try:
        return _READERS[found](payload)
    except (struct.error, IndexError, ValueError):
        raise broken(KINDS[found].title) from None


def imdecode(payload: memoryview, title: str, flags: int = cv2.IMREAD_COLOR) -> Frame:
    """What OpenCV makes of it; nothing is turned. Raises BadInput."""
    try:
        frame = cv2.imdecode(np.frombuffer(payload, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        frame = None
    if frame is None:
        raise broken(title)
    return frame  # type: ignore[return-value]  # OpenCV's stubs leave the dtype open; IMREAD_COLOR is uint8


def _png(payload: memoryview) -> Frame:
    """A PNG that lacks only its IEND has all its pixels, and is read by Pillow and browsers."""
    end = headers.png_end(payload)
    if end is not None:
        payload = memoryview(bytes(payload[:end]) + _IEND)
    return orientation.turned(imdecode(payload, "PNG"), exif.png_orientation(payload))


def _webp(payload: memoryview) -> Frame:
    return orientation.turned(imdecode(payload, "WebP"), exif.webp_orientation(payload))


def _bmp(payload: memoryview) -> Frame:
    if what := bmp.unsupported(payload):
        raise unsupported(what)
    width, height = headers.size_of(payload, "bmp")
    frame = bmp.masked_frame(payload, width, height)
    return imdecode(payload, "BMP") if frame is None else frame


def _tiff(payload: memoryview) -> Frame:
    """Of several pages the first."""
    tags = tiff.Tags(payload)
    try:
        tags.check()
    except tiff.Unsupported as what:
        raise unsupported(str(what)) from None
    return orientation.turned(_stored_tiff(tags), tags.orientation)


def _stored_tiff(tags: tiff.Tags) -> Frame:
    payload = tags.plain()
    if tags.alpha_multiplied:
        pixels = imdecode(payload, "TIFF", cv2.IMREAD_UNCHANGED)
        if pixels.ndim == 3 and pixels.shape[2] == 4 and pixels.dtype in (np.uint8, np.uint16):
            return tiff.divided(pixels)
    return imdecode(payload, "TIFF")


def _gif(payload: memoryview) -> Frame:
    return imdecode(gif.plain(payload), "GIF")


def _avif(payload: memoryview) -> Frame:
    return avif.transformed(payload, imdecode(payload, "AVIF"))


def _jp2(payload: memoryview) -> Frame:
    if what := jp2.unsupported(payload):
        raise unsupported(what)
    renamed = jp2.as_rgb(payload)
    try:
        frame = imdecode(payload if renamed is None else renamed, "JPEG 2000")
    except BadInput:
        if what := jp2.why_refused(payload):
            raise unsupported(what) from None
        raise
    return frame if renamed is None else jp2.converted(frame)


_READERS: dict[Format, Callable[[memoryview], Frame]] = {
    "png": _png,
    "webp": _webp,
    "bmp": _bmp,
    "tiff": _tiff,
    "gif": _gif,
    "avif": _avif,
    "jp2": _jp2,
}
