"""Resizing with antialiasing, as Pillow and torchvision do it: every pixel of the source counts where it is shrunk.

The weights are Pillow's (`precompute_coeffs` in its Resample.c): a filter of the size of an output pixel, or of a
source pixel where the picture grows. Both axes are banded matrices, multiplied block by block:

    source rows, bytes --[8 output columns a product]--> narrow rows, floats --[8 output rows a product]--> bytes

A strip of rows goes through both axes while it is in the cache. Channels stay interleaved: the horizontal weights are
spread over them, which costs less than turning the picture around.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from stages.frame import Frame

Filter = Literal["bilinear", "bicubic"]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_BLOCK = 8  # outputs computed by one product, where the filter is small
_BAND = 64  # inputs of one product; wider filters get fewer outputs each, because most of a wide matrix is zeros
_STRIP = 128  # source rows at a time: they go through both passes while they are in the cache
_SIZES = 16  # axes whose weights are kept: two for each size of pictures
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
    weights: Floats  # [outputs, inputs]; spread over channels: [inputs x channels, outputs x channels]


class Resampler:
    """Resizes frames by one filter. Keeps its memory from frame to frame; used by one thread."""

    def __init__(self, kind: Filter) -> None:
        self._blocks = lru_cache(_SIZES)(partial(_blocks, kind))
        self._overshoots = kind != "bilinear"
        self._memory: dict[str, Floats] = {}

    def resize(self, source: Frame, across: Span, down: Span, target: Frame) -> None:
        """Fill `target` with the part of `source` that the spans name; both are uint8 [h, w, c] or [h, w].

        Pixels beside the part count at its edges, as they do where a whole picture is resized and cropped after.
        """
        (height, width), channels = target.shape[:2], math.prod(source.shape[2:])
        columns = self._blocks(across, source.shape[1], width, channels)
        for strip in _strips(self._blocks(down, source.shape[0], height, 0)):
            top, bottom = strip[0].start, max(block.end for block in strip)
            narrow = self._array("narrow", bottom - top, width * channels)
            self._across(source[top:bottom], columns, narrow)
            for block in strip:
                lines = self._array("lines", block.last - block.first, width * channels)
                np.matmul(block.weights, narrow[block.start - top : block.end - top], out=lines)
                lines += np.float32(0.5)
                np.clip(lines, 0, 255, out=lines)
                part = target[block.first : block.last]
                np.copyto(part, lines.reshape(part.shape), casting="unsafe")

    def _across(self, source: Frame, columns: list[_Block], narrow: Floats) -> None:
        """The horizontal pass over some rows."""
        channels = math.prod(source.shape[2:])
        left, right = columns[0].start, max(block.end for block in columns)
        inner = source[:, left:right]
        wide = self._array("wide", len(source), (right - left) * channels)
        np.copyto(wide.reshape(inner.shape), inner)
        for block in columns:
            own = wide[:, (block.start - left) * channels : (block.end - left) * channels]
            np.matmul(own, block.weights, out=narrow[:, block.first * channels : block.last * channels])
        if self._overshoots:  # a cubic filter does
            np.clip(narrow, 0, 255, out=narrow)  # Pillow keeps bytes between its passes

    def _array(self, name: str, rows: int, columns: int) -> Floats:
        """Memory of its own for each purpose, contiguous, growing to the largest size that was wanted."""
        size = rows * columns
        block = self._memory.get(name)
        if block is None or block.size < size:
            block = self._memory[name] = np.empty(size, np.float32)
        return block[:size].reshape(rows, columns)


def _strips(blocks: list[_Block]) -> Iterator[list[_Block]]:
    """Neighbouring blocks that need at most `_STRIP` inputs together; what two strips share is computed twice."""
    strip: list[_Block] = []
    for block in blocks:
        if strip and block.end - strip[0].start > _STRIP:
            yield strip
            strip = []
        strip.append(block)
    yield strip


def _blocks(kind: Filter, span: Span, size: int, count: int, channels: int) -> list[_Block]:
    """The axis of `size` pixels, of which `span` becomes `count`, in blocks; spread over channels unless they are 0."""
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
        matrix = np.zeros((end - start, band + taps), np.float32)  # beyond the source all weights are 0
        np.put_along_axis(matrix, places, weights[start:end], axis=1)
        matrix = np.ascontiguousarray(matrix[:, :band])
        spread = np.kron(matrix.T, np.eye(channels, dtype=np.float32)) if channels else matrix
        blocks.append(_Block(start, end, int(own[0]), int(own[0]) + band, spread))
    return blocks


def _weights(kind: Filter, span: Span, size: int, count: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """The first source pixel of each output, and the weights [count, taps] of it and its followers; each sums to 1."""
    scale = span.length / count
    stretch = max(scale, 1.0)
    support = _SUPPORT[kind] * stretch
    centres = span.start + (np.arange(count) + 0.5) * scale
    first = np.maximum(np.trunc(centres - support + 0.5), 0).astype(np.int64)
    end = np.minimum(np.trunc(centres + support + 0.5), size).astype(np.int64)
    places = first[:, None] + np.arange(max(1, int((end - first).max())))
    weights = _FILTERS[kind]((places + 0.5 - centres[:, None]) / stretch)
    weights[places >= end[:, None]] = 0.0
    return first, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


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
