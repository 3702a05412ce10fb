"""Lines and zones of a picture: as they are written, and the geometry that counting needs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Self

import cv2
import numpy as np
import numpy.typing as npt

from parallel_infer.errors import ConfigError

Point = tuple[float, float]
_LONGEST_NAME = 64  # characters
MOST = 32  # lines and zones of a source


@dataclass(frozen=True)
class Shape:
    """Named points: fractions of the picture's width and height where none is above 1, otherwise pixels."""

    name: str
    points: tuple[Point, ...]

    option: ClassVar[str]
    least: ClassVar[int]  # points
    most: ClassVar[int]
    needs: ClassVar[str]

    @classmethod
    def parse(cls, text: str, number: int) -> Self:
        """`x,y,x,y...[:NAME]`; without a name it is the `number`-th of its kind. Raises ConfigError."""
        written, colon, name = text.partition(":")
        if colon and not 0 < len(name) <= _LONGEST_NAME:
            raise ConfigError(f"{cls.option} {text}: a name has 1 to {_LONGEST_NAME} characters")
        try:
            numbers = [float(word) for word in written.split(",")]
        except ValueError:
            raise ConfigError(f"{cls.option} {text}: {cls.needs}") from None
        found = cls(name or f"{cls.__name__.lower()}-{number}", tuple(zip(numbers[::2], numbers[1::2], strict=False)))
        if len(numbers) % 2 or not cls.least <= len(found.points) <= cls.most:
            raise ConfigError(f"{cls.option} {text}: {cls.needs}")
        found.check()
        return found

    @property
    def relative(self) -> bool:
        """Whether the points are fractions of the picture."""
        return max(max(point) for point in self.points) <= 1

    @property
    def text(self) -> str:
        """The points as they are written."""
        return ",".join(f"{number:g}" for point in self.points for number in point)

    def check(self) -> None:
        """Raises ConfigError for what is nothing in any picture."""
        numbers = [number for point in self.points for number in point]
        if not all(map(math.isfinite, numbers)) or min(numbers) < 0:
            raise ConfigError(f"{self.option} {self.text} is outside of every picture: the numbers are from 0 on")

    def placed(self, width: int, height: int) -> npt.NDArray[np.float64]:
        """Its points in pixels of a picture, float64 [k, 2]. Raises ConfigError where one is outside of it."""
        size = np.array([width, height], np.float64)
        points = np.array(self.points, np.float64) * (size if self.relative else 1.0)
        if (points > size).any():
            raise ConfigError(
                f"{self.option} {self.text} is outside of the picture, which is {width}x{height} pixels; numbers of "
                "which none is above 1 are fractions of it"
            )
        return points


class Line(Shape):
    """From its first point to its second; what crosses it from the left to the right of that way comes in."""

    option = "--count-line"
    least = most = 2
    needs = "a line is x1,y1,x2,y2[:NAME], in pixels or in fractions of the picture"

    def check(self) -> None:
        """Raises ConfigError for what is no line in any picture."""
        super().check()
        if self.points[0] == self.points[1]:
            raise ConfigError(f"{self.option} {self.text}: both ends are the same point")


class Zone(Shape):
    """The area between its points, in their order; edges that cross each other leave out what lies between them."""

    option = "--count-zone"
    least, most = 3, 256
    needs = "a zone is x,y,x,y,x,y...[:NAME] with 3 to 256 points, in pixels or in fractions of the picture"

    def check(self) -> None:
        """Raises ConfigError for what is no area in any picture."""
        super().check()
        first = np.array(self.points, np.float64) - self.points[0]
        if np.linalg.matrix_rank(first) < 2:
            raise ConfigError(f"{self.option} {self.text}: the points are in one line, with no area between them")


def check_names(shapes: Iterable[Shape]) -> None:
    """Raises ConfigError where two of the same kind have one name, and for too many."""
    seen: set[tuple[type[Shape], str]] = set()
    for number, shape in enumerate(shapes):
        if number == MOST:
            raise ConfigError(f"{shape.option} {shape.text}: one too many; up to {MOST} lines and zones are counted at")
        if (type(shape), shape.name) in seen:
            raise ConfigError(f"{shape.option} {shape.text}:{shape.name}: another one is called {shape.name}, too")
        seen.add((type(shape), shape.name))


def distance(line: npt.NDArray[np.float64], point: Point) -> float:
    """Of a point from an endless line [2, 2], in pixels; positive on its right, where y points down."""
    (x1, y1), (x2, y2) = line.tolist()
    turn: float = (x2 - x1) * (point[1] - y1) - (y2 - y1) * (point[0] - x1)
    return turn / math.hypot(x2 - x1, y2 - y1)


def crosses(line: npt.NDArray[np.float64], before: Point, after: Point) -> bool:
    """Whether the way between two points leads through a line [2, 2]; a point on the line is left of it.

    On a way of many pieces each passage is found in exactly one of them.
    """
    first, second = distance(line, before), distance(line, after)
    if (first > 0) == (second > 0):
        return False
    share = first / (first - second)
    start, along = line[0], line[1] - line[0]
    meeting = np.array(before) + share * (np.array(after) - np.array(before))
    return 0 <= float((meeting - start) @ along) <= float(along @ along)


def contains(zone: npt.NDArray[np.float64], point: Point) -> bool:
    """Whether a point is in a zone [k, 2], or on its edge."""
    return cv2.pointPolygonTest(zone.astype(np.float32), point, False) >= 0
