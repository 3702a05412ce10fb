"""What crossed a line, and what is in a zone and ever was. Pure: positions go in, counts come out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from parallel_infer.tracking.shapes import Line, Point, Zone, contains, crosses, distance

_BAND = 0.05  # of an object's size: so far behind a line it must be, so that one that stands on it is not counted


class Followed(NamedTuple):
    """One object in one frame."""

    number: int
    kind: str  # its class
    point: Point  # in pixels
    size: float  # mean side of its box in pixels


@dataclass(frozen=True)
class LineCount:
    """How many objects of each class crossed a line so far."""

    name: str
    points: npt.NDArray[np.float64]  # [2, 2] in pixels
    entered: dict[str, int]  # from the left to the right of the way from its first to its second point
    left: dict[str, int]

    def to_dict(self) -> dict[str, dict[str, int]]:
        return {"in": self.entered, "out": self.left}


@dataclass(frozen=True)
class ZoneCount:
    """How many objects of each class are in a zone, and how many different ones have been in it so far."""

    name: str
    points: npt.NDArray[np.float64]  # [k, 2] in pixels
    present: dict[str, int]
    entered: dict[str, int]

    def to_dict(self) -> dict[str, dict[str, int]]:
        return {"present": self.present, "entered": self.entered}


@dataclass(frozen=True)
class Counts:
    """The counts of a source at one frame."""

    lines: tuple[LineCount, ...] = ()
    zones: tuple[ZoneCount, ...] = ()

    def scaled(self, scale: float) -> Counts:
        """The same for a picture of so many times the size."""
        return Counts(
            tuple(replace(line, points=line.points * scale) for line in self.lines),
            tuple(replace(zone, points=zone.points * scale) for zone in self.zones),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values: `{"lines": {NAME: {"in": {CLASS: n}, "out": ...}}, "zones": {NAME: {"present": ...}}}`."""
        return {
            "lines": {line.name: line.to_dict() for line in self.lines},
            "zones": {zone.name: zone.to_dict() for zone in self.zones},
        }


def of(counted: dict[str, int]) -> str:
    """Counts by class in a few words: `3 person, 1 dog`."""
    return ", ".join(f"{count} {name}" for name, count in counted.items()) or "0"


def texts_of(counts: Counts) -> list[str]:
    """A text for each line, and then for each zone."""
    lines = [f"{line.name}: in {of(line.entered)}; out {of(line.left)}" for line in counts.lines]
    return lines + [f"{zone.name}: {of(zone.present)} now; {of(zone.entered)} in all" for zone in counts.zones]


class _Passage:
    """Where one object is from one line."""

    def __init__(self) -> None:
        self.point: Point | None = None  # when it was seen last
        self.side = 0  # 1: right, -1: left; 0: it was never clear of the line
        self.through = False  # whether it went through the line since it was clear of it


class LineCounter:
    """Counts an object when it is clear of the line on the other side, having gone through between its ends.

    `place` comes before `see`.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self._entered: Counter[str] = Counter()
        self._left: Counter[str] = Counter()
        self._points = np.zeros((0, 2))
        self._passages: dict[int, _Passage] = {}

    def place(self, width: int, height: int) -> None:
        """Pictures have this size from now on. Raises ConfigError where the line is outside of them."""
        self._points = self._line.placed(width, height)
        self._passages = {}

    def see(self, objects: Iterable[Followed], known: Collection[int]) -> LineCount:
        """The objects of a frame; of what is not `known` any more nothing is remembered."""
        for one in objects:
            self._see(one, self._passages.setdefault(one.number, _Passage()))
        self._passages = {number: passage for number, passage in self._passages.items() if number in known}
        return LineCount(self._line.name, self._points, dict(self._entered), dict(self._left))

    def _see(self, one: Followed, passage: _Passage) -> None:
        if passage.point is not None and crosses(self._points, passage.point, one.point):
            passage.through = not passage.through
        passage.point = one.point
        away = distance(self._points, one.point)
        if abs(away) <= _BAND * one.size:
            return
        side = 1 if away > 0 else -1
        if passage.through and passage.side == -side:
            (self._entered if side > 0 else self._left)[one.kind] += 1
        passage.side, passage.through = side, False


class ZoneCounter:
    """Counts each object once, however often it comes back while it is known. `place` comes before `see`."""

    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._entered: Counter[str] = Counter()
        self._counted: set[int] = set()
        self._points = np.zeros((0, 2))

    def place(self, width: int, height: int) -> None:
        """Pictures have this size from now on. Raises ConfigError where the zone is outside of them."""
        self._points = self._zone.placed(width, height)

    def see(self, objects: Iterable[Followed], known: Collection[int]) -> ZoneCount:
        """The objects of a frame; of what is not `known` any more nothing is remembered."""
        inside = [one for one in objects if contains(self._points, one.point)]
        new = [one for one in inside if one.number not in self._counted]
        self._entered.update(one.kind for one in new)
        self._counted = (self._counted | {one.number for one in new}) & set(known)
        return ZoneCount(self._zone.name, self._points, dict(Counter(one.kind for one in inside)), dict(self._entered))
