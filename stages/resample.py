"""Resizing with antialiasing, as Pillow and torchvision do it: every pixel of the source counts where it is shrunk.

The weights are Pillow's (`precompute_coeffs` in its Resample.c): a filter of the size of an output pixel, or of a
source pixel where the picture grows. Each axis is a banded matrix, multiplied block by block, and rounded to bytes, as
Pillow does between its passes. A product takes whole lines with their channels as they lie; therefore the picture is
turned for the horizontal pass:

    source [h, w, c] --turn--> [w, h, c] --8 lines a product--> [W, h, c] --turn--> [h, W, c] --8 lines--> [H, W, c]
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from stages.frame import Frame
from stages.opencv import cv2

Kernel = Literal["bilinear", "bicubic"]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_BLOCK = 8  # outputs computed by one product, where the filter is small
_BAND = 64  # inputs of one product; wider filters get fewer outputs each, because most of a wide matrix is zeros
_PRODUCT = 1_000_000  # multiplications: up to here OpenBLAS takes matrices as they lie, beyond it copies them first
_LINES = 1024  # of the source at a time: bounds the memory that a tall picture takes
_STRIP = 1 << 20  # bytes of floats at a time, but for filters that need more: they stay in the second cache
_LEAST = 128  # inputs of a strip, whatever they take: neighbouring strips share some
_SIZES = 32  # passes whose weights are kept: two for each size of pictures
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


class _Strip(NamedTuple):
    """Neighbouring blocks, with the memory that they are computed in: nothing is left to be done for each picture."""

    start: int  # of the inputs
    end: int
    first: int  # of the outputs
    last: int
    floats: Floats | Doubles  # [inputs, values]
    products: list[tuple[Floats | Doubles, Floats | Doubles, Floats | Doubles]]  # weights, inputs, sums
    sums: Floats | Doubles  # [outputs, values]


class Resampler:
    """Resizes frames by one filter. Keeps its memory from frame to frame; used by one thread."""

    def __init__(self, kind: Kernel) -> None:
        self._kind: Kernel = kind
        self._strips = lru_cache(_SIZES)(self._new_strips)
        self._memory: dict[str, npt.NDArray[Any]] = {}

    def resize(self, source: Frame, across: Span, down: Span, target: Frame) -> None:
        """Fill `target` with the part of `source` that the spans name; both are uint8 [h, w, c] or [h, w].

        The lines of `target` are contiguous. Pixels beside the part count at its edges, as they do where a whole
        picture is resized and cropped after.
        """
        if (same := _unscaled(source, across, down, target)) is not None:
            np.copyto(target, same)
            return
        (height, width), channels = target.shape[:2], target.shape[2:]
        strips = self._strips(down, source.shape[0], height, width * math.prod(channels))
        tallest = max(strip.end - strip.start for strip in strips)
        lines = self._array("lines", (tallest, width, *channels), np.uint8)
        begin = made = strips[0].start  # the source's lines that `lines` holds, after the horizontal pass
        for strip in strips:
            top, bottom = strip.start, strip.end
            made = max(made, top)
            lines[: made - top] = lines[top - begin : made - begin]  # a wide filter shares most of them
            for start in range(made, bottom, _LINES):
                end = min(start + _LINES, bottom)
                self._across(source[start:end], across, lines[start - top : end - top])
            begin, made = top, bottom
            _multiply(lines[: bottom - top], strip, target[strip.first : strip.last])

    def _across(self, source: Frame, across: Span, target: Frame) -> None:
        """The horizontal pass over some lines."""
        (height, width), channels = target.shape[:2], target.shape[2:]
        narrow = self._array("narrow", (width, height, *channels), np.uint8)
        for strip in self._strips(across, source.shape[1], width, height * math.prod(channels)):
            turned = self._array("turned", (strip.end - strip.start, height, *channels), np.uint8)
            cv2.transpose(source[:, strip.start : strip.end], dst=turned)
            _multiply(turned, strip, narrow[strip.first : strip.last])
        cv2.transpose(narrow, dst=target)

    def _new_strips(self, span: Span, size: int, count: int, values: int) -> list[_Strip]:
        """An axis as `_blocks` has it, of `values` numbers each, in strips whose floats take `_STRIP` bytes at most."""
        blocks = _blocks(self._kind, span, size, count, values)
        dtype = blocks[0].weights.dtype
        groups = list(_groups(blocks, max(_LEAST, _STRIP // (values * dtype.itemsize))))
        inputs = max(_reach(group)[1] - _reach(group)[0] for group in groups)
        outputs = max(group[-1].last - group[0].first for group in groups)
        floats = self._array(f"floats {dtype}", (inputs, values), dtype, _STRIP // dtype.itemsize)
        sums = self._array(f"sums {dtype}", (outputs, values), dtype, _STRIP // dtype.itemsize)
        return [_strip(group, floats, sums) for group in groups]

    def _array(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike, least: int = 0) -> npt.NDArray[Any]:
        """Memory of its own for each purpose, contiguous, growing to the largest size that was wanted.

        Of zeros the system keeps no memory before they are written, so that `least` costs nothing.
        """
        size = math.prod(shape)
        block = self._memory.get(name)
        if block is None or block.size < size:
            if block is not None and least:
                self._strips.cache_clear()  # they would keep the smaller one
            block = self._memory[name] = np.zeros(max(size, least), dtype)
        return block[:size].reshape(shape)


def _multiply(source: Frame, strip: _Strip, target: Frame) -> None:
    """The first axis of `source`, what the strip needs of it, becomes that of `target`, what the strip makes."""
    _, _, _, _, floats, products, sums = strip
    # 0 x what was there + 1 x the bytes: nobody makes floats of them sooner.
    cv2.accumulateWeighted(source.reshape(floats.shape), floats, 1.0)
    for weights, inputs, out in products:
        np.matmul(weights, inputs, out=out)
    # OpenCV rounds and stays within 0 to 255, which cubic filters leave, at once. It rounds halves to even
    # numbers, Pillow rounds them up.
    sums = sums.reshape(target.shape)
    if sums.dtype == np.float32:  # half as long, but in floats
        cv2.threshold(sums, 0.0, 0.0, cv2.THRESH_TOZERO, dst=sums)
        cv2.convertScaleAbs(sums, dst=target, alpha=1.0, beta=_UP[4])
    else:
        cv2.addWeighted(sums, 1.0, sums, 0.0, _UP[8], dst=target, dtype=cv2.CV_8U)


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


def _groups(blocks: list[_Block], most: int) -> Iterator[list[_Block]]:
    """Neighbouring blocks that together have at most so many inputs, and twice as many outputs, or one block."""
    group: list[_Block] = []
    for block in blocks:
        if group and max(block.end - group[0].start, (block.last - group[0].first) // 2) > most:
            yield group
            group = []
        group.append(block)
    yield group


def _strip(blocks: list[_Block], floats: Floats | Doubles, sums: Floats | Doubles) -> _Strip:
    (start, end), first, last = _reach(blocks), blocks[0].first, blocks[-1].last
    products = [
        (block.weights, floats[block.start - start : block.end - start], sums[block.first - first : block.last - first])
        for block in blocks
    ]
    return _Strip(start, end, first, last, floats[: end - start], products, sums[: last - first])


def _blocks(kind: Kernel, span: Span, size: int, count: int, values: int) -> list[_Block]:
    """The axis of `size` pixels, of which `span` becomes `count`, in blocks for products of `values` numbers each."""
    first, weights = _weights(kind, span, size, count)
    taps = weights.shape[1]
    scale = span.length / count
    for step in (_BLOCK, 4, 2, 1):
        wide = step * scale + taps
        if wide <= _BAND and step * wide * values <= _PRODUCT:
            break
    begin = first[::step]
    places = first - np.repeat(begin, step)[:count]
    band = int(places.max()) + taps
    matrix = np.zeros((count, band), weights.dtype)
    np.put_along_axis(matrix, places[:, None] + np.arange(taps), weights, axis=1)
    blocks = []
    for number, start in enumerate(begin.tolist()):
        end = min(start + band, size)  # beyond the source all weights are 0
        rows = slice(number * step, min((number + 1) * step, count))
        blocks.append(_Block(rows.start, rows.stop, start, end, matrix[rows, : end - start]))
    return blocks


def _weights(kind: Kernel, span: Span, size: int, count: int) -> tuple[npt.NDArray[np.int64], Floats | Doubles]:
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
