"""Where a frame lands in a row: the numbers of the four ways to resize, and the resizing itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stages.frame import Frame
from stages.geometry import Geometry
from stages.opencv import cv2
from stages.resample import Resampler, Span

if TYPE_CHECKING:
    from stages.preprocess import Preprocess

_FILTERED = 1.4
"""Pixels of a reduced picture per pixel of a row, along each axis, that a filter with antialiasing is given. From here
on rows of the shipped pictures move less than by writing the JPEG in quality 85 instead of 90."""


class Box(NamedTuple):
    """Whole pixels."""

    x: int
    y: int
    width: int
    height: int

    def of(self, frame: Frame) -> Frame:
        """That part of `frame`, as a view."""
        return frame[self.y : self.y + self.height, self.x : self.x + self.width]


class Placement(NamedTuple):
    """Which part of the frame fills which part of the row."""

    source: Box | tuple[Span, Span]  # whole pixels, or across and down where a filter takes them in part
    target: Box

    @property
    def spans(self) -> tuple[Span, Span]:
        """The part of the frame, across and down."""
        source = self.source
        if isinstance(source, Box):
            return Span(source.x, source.width), Span(source.y, source.height)
        return source

    def within(self, frame: Geometry) -> Placement:
        """The same of a frame of the picture that is smaller, or whose edge lies within a pixel."""
        across, down = self.spans
        across = Span(across.start * frame.scale_x + frame.offset_x, across.length * frame.scale_x)
        down = Span(down.start * frame.scale_y + frame.offset_y, down.length * frame.scale_y)
        return self._replace(source=(across, down))

    def geometry(self, width: float, height: float) -> Geometry:
        """The map that these numbers, rather than the ratio they were rounded from, stand for."""
        across, down = self.spans
        scale_x = self.target.width / across.length
        scale_y = self.target.height / down.length
        offset_x = self.target.x - across.start * scale_x
        offset_y = self.target.y - down.start * scale_y
        return Geometry(width, height, scale_x, scale_y, offset_x, offset_y)


def place(preprocess: Preprocess, width: int, height: int) -> Placement:
    """The placement of a frame of that size."""
    frame, row = Box(0, 0, width, height), Box(0, 0, preprocess.width, preprocess.height)
    match preprocess.resize:
        case "stretch":
            return Placement(frame, row)
        case "crop" if preprocess.filter == "linear":
            return Placement(_centre(frame, row, preprocess.crop_fraction), row)
        case "crop":
            return Placement(_cropped_after(frame, row, preprocess.crop_fraction), row)
        case "letterbox":
            inner = _shrunk(frame, row)
            # Ultralytics' LetterBox: an odd pixel of padding goes to the right and to the bottom.
            left, top = (round((whole - part) / 2 - 0.1) for whole, part in zip(row[2:], inner[2:], strict=True))
            return Placement(frame, inner._replace(x=left, y=top))
        case "letterbox-corner":
            return Placement(frame, _shrunk(frame, row))


def least_scale(preprocess: Preprocess, width: int, height: int) -> float:
    """The smallest scale at which a picture of that size still has a pixel for every pixel of the row.

    A filter gets more, or there is nothing left for it to do.
    """
    pixels = 1.0 if preprocess.filter == "linear" else _FILTERED
    ratios = pixels * preprocess.width / width, pixels * preprocess.height / height
    match preprocess.resize:
        case "stretch":
            return max(ratios)
        case "crop":
            return max(ratios) / preprocess.crop_fraction
        case "letterbox" | "letterbox-corner":
            return min(ratios)


def draw(frame: Frame, placement: Placement, canvas: Frame, pad: int, resampler: Resampler | None) -> None:
    """Fill `canvas`, uint8 [H, W, 3]: the placed frame, and `pad` around it. A gray frame is made BGR.

    The frame is resized by `resampler`; without one as OpenCV does it, bilinear and without antialiasing.
    """
    target = placement.target.of(canvas)
    if resampler is None:
        _draw_linear(frame, placement, target)
    elif frame.ndim == 3:
        resampler.resize(frame, *placement.spans, target)
    else:
        gray = np.empty(target.shape[:2], np.uint8)
        resampler.resize(frame, *placement.spans, gray)
        cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR, dst=target)
    _surround(canvas, placement.target, pad)


def _draw_linear(frame: Frame, placement: Placement, target: Frame) -> None:
    assert isinstance(placement.source, Box)
    source = placement.source.of(frame)
    size = (placement.target.width, placement.target.height)
    if frame.ndim == 2:
        gray = cv2.resize(source, size, interpolation=cv2.INTER_LINEAR)
        cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR, dst=target)
    elif source.shape == target.shape:
        np.copyto(target, source)
    else:
        cv2.resize(source, size, dst=target, interpolation=cv2.INTER_LINEAR)


def _shrunk(frame: Box, row: Box) -> Box:
    """The largest box of the frame's shape within the row, never thinner than a pixel."""
    ratio = min(row.width / frame.width, row.height / frame.height)
    return Box(0, 0, max(1, round(frame.width * ratio)), max(1, round(frame.height * ratio)))


def _centre(frame: Box, row: Box, fraction: float) -> Box:
    """The centre of the frame in the row's shape, `fraction` of the largest such box."""
    ratio = min(frame.width / row.width, frame.height / row.height) * fraction
    width, height = max(1, round(row.width * ratio)), max(1, round(row.height * ratio))
    return Box((frame.width - width) // 2, (frame.height - height) // 2, width, height)


def _cropped_after(frame: Box, row: Box, fraction: float) -> tuple[Span, Span]:
    """The part that is left where the whole frame is resized first and cropped to the row then, as torchvision does.

    The shorter side becomes 1 / `fraction` of the row's (`Resize`), the longer one follows, both rounded down; the crop
    begins at half of what is too much, rounded (`CenterCrop`).
    """
    sides = ((frame.width, row.width), (frame.height, row.height))
    short, goal = max(sides, key=lambda side: side[1] / side[0])
    resized = math.floor(goal / fraction + 1e-6)
    spans = []
    for length, kept in sides:
        whole = resized if length == short else resized * length // short
        spans.append(Span(round((whole - kept) / 2) * length / whole, kept * length / whole))
    return spans[0], spans[1]


def _surround(canvas: Frame, inner: Box, pad: int) -> None:
    bottom, right = inner.y + inner.height, inner.x + inner.width
    canvas[: inner.y] = pad
    canvas[bottom:] = pad
    canvas[inner.y : bottom, : inner.x] = pad
    canvas[inner.y : bottom, right:] = pad
