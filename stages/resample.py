"""Resizing with antialiasing, as Pillow and torchvision do it: every pixel of the source counts where it is shrunk.

The weights are Pillow's (`precompute_coeffs` in its Resample.c): a filter of the size of an output pixel, or of a
source pixel where the picture grows. Each axis is a banded matrix, multiplied block by block, and rounded to bytes, as
Pillow does between its passes. A product takes whole lines with their channels as they lie; therefore the picture is
turned for the horizontal pass, which costs a tenth of the products:

    source [h, w, c] --turn--> [w, h, c] --8 lines a product--> [W, h, c] --turn--> [h, W, c] --8 lines--> [H, W, c]

A strip goes from bytes to bytes while it is in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from stages.frame import Frame
from stages.opencv import cv2

Filter = Literal["bilinear", "bicubic"]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_BLOCK = 8  # outputs computed by one product, where the filter is small
_BAND = 64  # inputs of one product; wider filters get fewer outputs each, because most of a wide matrix is zeros
_LINES = 1024  # of the source at a time: bounds the memory that a tall picture takes
_STRIP = 256  # of them, or columns, as floats at a time: they stay in the cache meanwhile
_SIZES = 16  # axes whose weights are kept: two for each size of pictures
_FRACTION = 1 << 22  # Pillow's weights are whole numbers of this part of one
_UP = {4: 1e-5, 8: 1e-8}  # by bytes of the floats: more than their sums err, or, of doubles, half of a fraction
_CUBIC = -0.5  # the parameter of the cubic filter (Keys, 1981), as Pillow and torchvision have it


class Span(NamedTuple):
    """A stretch of one axis of the source, in pixels; it may begin and end within one."""

    start: float
    length: float


class _Block(NamedTuple):
    """Outputs `first` to `last` of an axis, made of the inputs `start` to `end`."""

    first: int
    last: int
    start: int
    end: int
    weights: Floats | Doubles  # [outputs, inputs]


class Resampler:
    """Resizes frames by one filter. Keeps its memory from frame to frame; used by one thread."""

    def __init__(self, kind: Filter) -> None:
        self._blocks = lru_cache(_SIZES)(partial(_blocks, kind))
        self._memory: dict[str, npt.NDArray[Any]] = {}

    def resize(self, source: Frame, across: Span, down: Span, target: Frame) -> None:
        """Fill `target` with the part of `source` that the spans name; both are uint8 [h, w, c] or [h, w].

        The lines of `target` are contiguous. Pixels beside the part count at its edges, as they do where a whole
        picture is resized and cropped after.
        """
        if (same := _unscaled(source, across, down, target)) is not None:
            np.copyto(target, same)
            return
        width, channels = target.shape[1], source.shape[2:]
        columns = self._blocks(across, source.shape[1], width)
        parts = list(_strips(self._blocks(down, source.shape[0], target.shape[0]), _LINES))
        tallest = max(bottom - top for top, bottom in map(_reach, parts))
        lines = self._array("lines", (tallest, width, *channels), np.uint8)
        begin = made = _reach(parts[0])[0]  # the source's lines that `lines` holds, after the horizontal pass
        for part in parts:
            top, bottom = _reach(part)
            made = max(made, top)
            lines[: made - top] = lines[top - begin : made - begin]  # a wide filter shares most of them
            for start in range(made, bottom, _LINES):
                end = min(start + _LINES, bottom)
                self._across(source[start:end], columns, lines[start - top : end - top])
            begin, made = top, bottom
            for strip in _strips(part, _STRIP):
                start, end = _reach(strip)
                self._products(lines[start - top : end - top], strip, target[strip[0].first : strip[-1].last])

    def _across(self, source: Frame, columns: list[_Block], target: Frame) -> None:
        """The horizontal pass over some lines."""
        (height, width), channels = target.shape[:2], target.shape[2:]
        narrow = self._array("narrow", (width, height, *channels), np.uint8)
        for strip in _strips(columns, _STRIP):
            start, end = _reach(strip)
            turned = self._array("turned", (end - start, height, *channels), np.uint8)
            cv2.transpose(source[:, start:end], dst=turned)
            self._products(turned, strip, narrow[strip[0].first : strip[-1].last])
        cv2.transpose(narrow, dst=target)

    def _products(self, source: Frame, strip: list[_Block], target: Frame) -> None:
        """The first axis of `source`, what the strip needs of it, becomes that of `target`, what the strip makes."""
        begin, first, dtype = strip[0].start, strip[0].first, strip[0].weights.dtype
        floats = self._array(f"floats {dtype}", source.shape, dtype)
        np.copyto(floats, source)
        sums = self._array(f"sums {dtype}", target.shape, dtype)
        flat, out = floats.reshape(len(floats), -1), sums.reshape(len(sums), -1)
        for block in strip:
            inputs = flat[block.start - begin : block.end - begin]
            np.matmul(block.weights, inputs, out=out[block.first - first : block.last - first])
        # OpenCV rounds and stays within 0 to 255, which cubic filters leave, at once. It rounds halves to even
        # numbers, Pillow rounds them up.
        cv2.addWeighted(sums, 1.0, sums, 0.0, _UP[dtype.itemsize], dst=target, dtype=cv2.CV_8U)

    def _array(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Memory of its own for each purpose, contiguous, growing to the largest size that was wanted."""
        size = math.prod(shape)
        block = self._memory.get(name)
        if block is None or block.size < size:
            block = self._memory[name] = np.empty(size, dtype)
        return block[:size].reshape(shape)


def _unscaled(source: Frame, across: Span, down: Span, target: Frame) -> Frame | None:
    """The part itself, where nothing is scaled or moved by less than a pixel: there every filter gives its inputs."""
    for span, size, count in zip((down, across), source.shape, target.shape, strict=False):
        if span.length != count or span.start % 1 or not 0 <= span.start <= size - count:
            return None
    top, left = int(down.start), int(across.start)
    return source[top : top + target.shape[0], left : left + target.shape[1]]


def _reach(blocks: list[_Block]) -> tuple[int, int]:
    """The inputs of neighbouring blocks, from the first one on and up to the last one."""
    return blocks[0].start, max(block.end for block in blocks)


def _strips(blocks: list[_Block], most: int) -> Iterator[list[_Block]]:
    """Neighbouring blocks that need at most so many inputs together."""
    strip: list[_Block] = []
    for block in blocks:
        if strip and block.end - strip[0].start > most:
            yield strip
            strip = []
        strip.append(block)
    yield strip


def _blocks(kind: Filter, span: Span, size: int, count: int) -> list[_Block]:
    """The axis of `size` pixels, of which `span` becomes `count`, in blocks."""
    first, weights = _weights(kind, span, size, count)
    taps = weights.shape[1]
    # A strip must hold whole blocks.
    step = next(step for step in (_BLOCK, 4, 2, 1) if step == 1 or step * span.length / count + taps <= _BAND)
    blocks = []
    for start in range(0, count, step):
        end = min(start + step, count)
        own = first[start:end]
        places = own[:, None] - own[0] + np.arange(taps)
        band = min(int(own[-1]) + taps, size) - int(own[0])
        matrix = np.zeros((end - start, band + taps), weights.dtype)  # beyond the source all weights are 0
        np.put_along_axis(matrix, places, weights[start:end], axis=1)
        blocks.append(_Block(start, end, int(own[0]), int(own[0]) + band, np.ascontiguousarray(matrix[:, :band])))
    return blocks


def _weights(kind: Filter, span: Span, size: int, count: int) -> tuple[npt.NDArray[np.int64], Floats | Doubles]:
    """The first source pixel of each output, and the weights [count, taps] of it and its followers; each sums to 1.

    Where the picture grows they are doubles, whose sums are exact: a weight may be 1 then, and what the first axis
    rounded otherwise than Pillow would come out of the second one as large as it is.
    """
    scale = span.length / count
    stretch = max(scale, 1.0)
    support = _SUPPORT[kind] * stretch
    centres = span.start + (np.arange(count) + 0.5) * scale
    first = np.maximum(np.trunc(centres - support + 0.5), 0).astype(np.int64)
    end = np.minimum(np.trunc(centres + support + 0.5), size).astype(np.int64)
    places = first[:, None] + np.arange(max(1, int((end - first).max())))
    weights = _FILTERS[kind]((places + 0.5 - centres[:, None]) / stretch)
    weights[places >= end[:, None]] = 0.0
    weights = np.floor(weights / weights.sum(axis=1, keepdims=True) * _FRACTION + 0.5) / _FRACTION
    return first, weights.astype(np.float32 if scale >= 1 else np.float64)


def _triangle(distance: Doubles) -> Doubles:
    return np.maximum(1.0 - np.abs(distance), 0.0)


def _cubic(distance: Doubles) -> Doubles:
    """Cubic convolution: R. Keys, "Cubic convolution interpolation for digital image processing", 1981."""
    x, a = np.abs(distance), _CUBIC
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.asarray(np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0)))


_FILTERS = {"bilinear": _triangle, "bicubic": _cubic}
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
