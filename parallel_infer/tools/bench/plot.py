"""A run as a picture: throughput and latency over the load. Drawn with OpenCV, which is there anyway.

Everything is drawn at twice its size and halved at the end, because that makes OpenCV's line letters legible.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from parallel_infer.tools.bench.figures import PERCENTILES, Level, Run

Frame = npt.NDArray[np.uint8]
Color = tuple[int, int, int]  # BGR

_SCALE = 2  # drawn larger by this
_WIDTH, _HEIGHT = 1200, 560  # of the picture
_TOP, _BOTTOM, _LEFT, _RIGHT, _BETWEEN = 96, 86, 82, 30, 92  # margins
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_INK, _FAINT, _PAPER = (40, 40, 40), (225, 225, 225), (255, 255, 255)
_BLUE, _ORANGE, _GREEN, _RED = (180, 119, 31), (14, 127, 255), (44, 160, 44), (40, 39, 214)
_TICKS = 5  # about so many on an axis
_ROOM = 1.08  # of the largest value, that an axis reaches


@dataclass(frozen=True, slots=True)
class Line:
    """One figure of every load."""

    name: str
    values: Sequence[float]
    color: Color


class Canvas:
    """A white sheet in units of pixels of the finished picture."""

    def __init__(self, width: int, height: int) -> None:
        self._sheet: Frame = np.full((height * _SCALE, width * _SCALE, 3), 255, np.uint8)

    def line(self, points: Sequence[tuple[float, float]], color: Color, width: int = 2) -> None:
        if not points:
            return
        path = np.array([[round(x * _SCALE), round(y * _SCALE)] for x, y in points], np.int32)
        cv2.polylines(self._sheet, [path], False, color, width * _SCALE // 2, cv2.LINE_AA)

    def dot(self, x: float, y: float, color: Color) -> None:
        cv2.circle(self._sheet, (round(x * _SCALE), round(y * _SCALE)), 4 * _SCALE, color, -1, cv2.LINE_AA)

    def text(self, text: str, x: float, y: float, align: float = 0.0, size: float = 13, color: Color = _INK) -> None:
        """`align` 0 begins at x, 0.5 is centred there, 1 ends there; y is the base line; `size` of capitals ~ 0.75."""
        scale, stroke = size * _SCALE / 30, _SCALE
        (width, _), _ = cv2.getTextSize(text, _FONT, scale, stroke)
        at = (round(x * _SCALE - align * width), round(y * _SCALE))
        cv2.putText(self._sheet, text, at, _FONT, scale, color, stroke, cv2.LINE_AA)

    def png(self) -> bytes:
        height, width = self._sheet.shape[0] // _SCALE, self._sheet.shape[1] // _SCALE
        finished = cv2.resize(self._sheet, (width, height), interpolation=cv2.INTER_AREA)
        return bytes(cv2.imencode(".png", finished)[1])


@dataclass(frozen=True, slots=True)
class Panel:
    """One diagram: loads from left to right in equal steps, values from zero upwards."""

    canvas: Canvas
    title: str
    left: float
    width: float
    labels: Sequence[str]
    lines: Sequence[Line]
    parted: int  # so many loads are of another kind than those that follow, and are not joined to them

    def draw(self) -> None:
        self._draw_grid()
        for line in self.lines:
            points = [(self._x(index), self._y(value)) for index, value in enumerate(line.values)]
            self.canvas.line(points[: self.parted], line.color, 3)
            self.canvas.line(points[self.parted :], line.color, 3)
            for point in points:
                self.canvas.dot(*point, line.color)
        self._draw_legend()

    @property
    def _step(self) -> float:
        return tick_step(self._most / _TICKS)

    @property
    def _most(self) -> float:
        return max((value for line in self.lines for value in line.values), default=0.0) * _ROOM or 1.0

    def _x(self, index: int) -> float:
        return self.left + self.width * (index + 0.5) / max(1, len(self.labels))

    def _y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / self._most

    def _draw_grid(self) -> None:
        self.canvas.text(self.title, self.left, _TOP - 16, size=14)
        for number in range(int(self._most / self._step) + 1):
            y = self._y(number * self._step)
            self.canvas.line([(self.left, y), (self.left + self.width, y)], _FAINT)
            self.canvas.text(f"{number * self._step:g}", self.left - 8, y + 5, align=1.0, size=12)
        self.canvas.line([(self.left, self._y(0)), (self.left + self.width, self._y(0))], _INK)
        for index, label in enumerate(self.labels):
            self.canvas.text(label, self._x(index), _HEIGHT - _BOTTOM + 22, align=0.5, size=12)

    def _draw_legend(self) -> None:
        x = self.left
        for line in self.lines if len(self.lines) > 1 else ():
            self.canvas.line([(x, _HEIGHT - 32), (x + 22, _HEIGHT - 32)], line.color, 3)
            self.canvas.text(line.name, x + 30, _HEIGHT - 27, size=12)
            x += 56 + 8.5 * len(line.name)


def draw_run(run: Run) -> bytes:
    """The run as a PNG of 1200 x 560 pixels: throughput to the left, latency percentiles to the right."""
    canvas = Canvas(_WIDTH, _HEIGHT)
    origin = run.origin
    canvas.text(f"{run.model}: {run.provider}", _LEFT, 34, size=17)
    canvas.text(f"{origin.processor}, {origin.cores} cores", _LEFT, 56, size=11)
    width = (_WIDTH - _LEFT - _RIGHT - _BETWEEN) / 2
    labels = [level.name.removesuffix(" in flight") for level in run.levels]
    parted = sum(level.in_flight > 0 for level in run.levels)
    canvas.text(_axis(run.levels), _WIDTH / 2, _HEIGHT - 48, align=0.5, size=12)
    Panel(canvas, "pictures per second", _LEFT, width, labels, _throughput(run), parted).draw()
    latency = [Line(name, _latency(run, name), color) for name, color in zip(PERCENTILES, _COLORS, strict=True)]
    Panel(canvas, "latency, ms", _LEFT + width + _BETWEEN, width, labels, latency, parted).draw()
    return canvas.png()


_COLORS = (_BLUE, _ORANGE, _RED)


def tick_step(wanted: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is at least `wanted`."""
    power = 10.0 ** math.floor(math.log10(wanted))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= wanted * (1 - 1e-9))


def _axis(levels: Sequence[Level]) -> str:
    kinds = {"jobs in flight" if level.in_flight else "jobs falling due per second" for level in levels}
    return " / ".join(sorted(kinds, reverse=True))


def _latency(run: Run, name: str) -> list[float]:
    return [level.latency_ms.get(name, 0.0) for level in run.levels]


def _throughput(run: Run) -> list[Line]:
    lines = [Line("answered", [level.per_second for level in run.levels], _BLUE)]
    if any(level.rate for level in run.levels):
        goodput = [level.goodput if level.rate else level.per_second for level in run.levels]
        lines.append(Line("in time", goodput, _GREEN))
    if run.comparison is not None:
        best = max(run.comparison.single, run.comparison.batched)
        lines.append(Line("synchronous loop", [best] * len(run.levels), _ORANGE))
        if run.comparison.ceiling is not None:
            lines.append(Line("ceiling of the cores", [run.comparison.ceiling] * len(run.levels), _RED))
    return lines
