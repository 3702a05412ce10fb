"""Payload to frame: JPEG, PNG, WebP and, where allowed, other formats become uint8 BGR pixels.

The contract is what each format says: 8 bits, three channels (gray and palettes expanded, alpha dropped without
multiplying by it), turned and mirrored as the picture says; of an animation or of several pages the first. OpenCV and
libjpeg-turbo decode, and are corrected where they do something else. What cannot be read is `BadInput`, and so is a
header that asks for more pixels than allowed, before anything is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import simplejpeg

from parallel_infer.errors import BadInput, ConfigError
from stages.frame import Frame, Scratch
from stages.geometry import Geometry
from stages.opencv import MAX_PIXELS, cv2
from stages.pictures import decoding, headers, jpeg, jpeg_ends, orientation
from stages.pictures.headers import Format

__all__ = ["Decoder", "Format", "LeastScale", "Picture", "PictureLimits"]

LeastScale = Callable[[int, int], float]
"""From a picture's width and height to the smallest scale, at most 1, that still gives every pixel that is wanted."""

_MOST_SCANS = 100


class PictureLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a server accepts as a picture."""

    max_pixels: int = 50_000_000
    formats: tuple[Format, ...] = ("jpeg", "png", "webp")


class Picture(NamedTuple):
    """A decoded picture."""

    frame: Frame  # uint8 [h, w, 3] BGR; belongs to the decoder and is valid until its next decode
    geometry: Geometry  # from the picture at full size to `frame`, which may be smaller


class _Way(NamedTuple):
    """How a JPEG is decoded."""

    eighths: int  # of the full size
    options: dict[str, bool]  # of simplejpeg


_EXACT = _Way(8, {})


class Decoder:
    """Decodes one picture after the other into the same memory. Used by one thread."""

    def __init__(self, limits: PictureLimits) -> None:
        """Raises ConfigError where `max_pixels` is beyond what OpenCV reads in this process."""
        if limits.max_pixels > MAX_PIXELS:
            raise ConfigError(
                f"max_pixels is {limits.max_pixels}, but OpenCV stops at {MAX_PIXELS}; "
                "set OPENCV_IO_MAX_IMAGE_PIXELS in the environment to raise that"
            )
        self._limits = limits
        self._pixels = Scratch()
        self._turned = Scratch()

    def decode(self, payload: bytes | memoryview, least_scale: LeastScale | None = None) -> Picture:
        """The picture in `payload`, whose memory is not kept.

        With `least_scale`, a JPEG is decoded at 1/2, 1/4 or 1/8 where that is still enough, else in full with colours
        that are repeated instead of interpolated: faster, with pixels that differ from those of an exact decode.
        Raises BadInput for whatever is not an accepted, sound picture.
        """
        view = jpeg.start(memoryview(payload).cast("B"))
        found = headers.format_of(view, self._limits.formats)
        self._check(found, headers.size_of(view, found))
        if found == "jpeg":
            return self._jpeg(view, least_scale)
        return _whole(decoding.read(found, view))

    def _check(self, found: Format, size: headers.Size) -> None:
        pixels, limit = size.width * size.height, self._limits.max_pixels
        if pixels > limit:
            raise BadInput(
                f"the {headers.KINDS[found].title} picture is too large: {size.width}x{size.height} is {pixels} "
                f"pixels; the limit is {limit} (option max_pixels)"
            )

    def _jpeg(self, payload: memoryview, least_scale: LeastScale | None) -> Picture:
        head = _headline(payload)
        way = _EXACT if least_scale is None else _Way(_eighths(head, least_scale), {"fastupsample": True})
        try:
            frame = self._turbo(payload, head, way)
        except ValueError as error:
            # What libjpeg-turbo warns about, another way may still read; a truncated payload none does.
            return self._oddly(payload, head, way, str(error))
        return self._upright(frame, head, way.eighths)

    def _oddly(self, payload: memoryview, head: jpeg.Headline, way: _Way, complaint: str) -> Picture:
        """A JPEG that libjpeg-turbo does not decode without a word: what it lacks is put right, or OpenCV reads it."""
        if head.unsupported:
            raise decoding.unsupported(head.unsupported)
        ended = jpeg_ends.ended(payload, head)
        if ended is None:
            raise decoding.broken("JPEG")
        if ended is not payload and head.components != 4:
            return self._upright(self._turbo(ended, head, way), head, way.eighths)
        if head.components == 1 and "color conversion" in complaint:  # lossless JPEG knows its own colours only
            gray = simplejpeg.decode_jpeg(ended, "GRAY", strict=False)
            return self._upright(cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR), head, 8)
        return self._upright(decoding.imdecode(ended, "JPEG"), head, 8)

    def _upright(self, frame: Frame, head: jpeg.Headline, eighths: int) -> Picture:
        if head.orientation == 1:
            return Picture(frame, _scaled(head, frame, eighths))
        height, width = frame.shape[:2]
        swapped = head.orientation in orientation.TRANSPOSED
        turned = self._turned.frame(*((width, height) if swapped else (height, width)))
        orientation.turn(frame, head.orientation, turned)
        return Picture(turned, _scaled(head, turned, eighths))

    def _turbo(self, payload: memoryview, head: jpeg.Headline, way: _Way) -> Frame:
        """Raises ValueError where OpenCV should try: four components (CMYK), or anything libjpeg-turbo objects to."""
        if head.components == 4:
            raise ValueError("four components")
        width, height = -(-head.width * way.eighths // 8), -(-head.height * way.eighths // 8)
        frame = self._pixels.frame(height, width)
        least = {} if way.eighths == 8 else {"min_width": width, "min_height": height}
        decoded: Frame = simplejpeg.decode_jpeg(payload, "BGR", buffer=frame, **least, **way.options)
        return decoded


def _headline(payload: memoryview) -> jpeg.Headline:
    try:
        head = jpeg.headline(payload)
    except (struct.error, IndexError, ValueError):
        raise decoding.broken("JPEG") from None
    if head.many_scans and jpeg.scans(payload, head, _MOST_SCANS).number > _MOST_SCANS:
        raise BadInput(f"the JPEG picture has more than {_MOST_SCANS} scans")
    return head


def _eighths(head: jpeg.Headline, least_scale: LeastScale) -> int:
    """Eighths of the full size to decode at; only those that libjpeg-turbo has vector code for."""
    size = (head.width, head.height)
    if max(size) < 8:
        return 8  # several scales would give the same size and could not be told apart
    wanted = least_scale(*(reversed(size) if head.orientation in orientation.TRANSPOSED else size))
    return next((eighths for eighths in (1, 2, 4) if eighths / 8 >= wanted), 8)


def _scaled(head: jpeg.Headline, frame: Frame, eighths: int) -> Geometry:
    """The scale is exactly `eighths` / 8; the decoder rounds the size up, so a mirrored axis starts before 0."""
    size = (float(head.width), float(head.height))
    width, height = reversed(size) if head.orientation in orientation.TRANSPOSED else size
    scale = eighths / 8
    offset_x = frame.shape[1] - width * scale if head.orientation in orientation.MIRRORED_X else 0.0
    offset_y = frame.shape[0] - height * scale if head.orientation in orientation.MIRRORED_Y else 0.0
    return Geometry(width, height, scale, scale, offset_x, offset_y)


def _whole(frame: Frame) -> Picture:
    return Picture(frame, Geometry(frame.shape[1], frame.shape[0], 1.0, 1.0, 0.0, 0.0))
