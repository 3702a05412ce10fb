"""All that a family may look at to tell whether a model is its own. Shapes are those of one job, without the batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
from msgspec import Struct

Triple = tuple[float, float, float]


class Metadata(Struct, frozen=True, kw_only=True):
    """What the exporter wrote into the file. None and empty: not given."""

    task: str | None = None  # in our words: "keypoints" for "pose"
    names: tuple[str, ...] = ()
    imgsz: tuple[int, int] | None = None  # height, width
    kpt_shape: tuple[int, int] | None = None
    end2end: bool | None = None
    batch: int | None = None  # that the exporter ran the model with
    nms: bool = False  # exported with nms=True
    head: str = ""  # class of the last layer
    description: str = ""
    character: tuple[str, ...] = ()  # one class, or one character that a text model reads, for each number
    resize: str | None = None
    crop_fraction: float | None = None
    filter: str | None = None
    mean: Triple | None = None  # of pixels 0..255
    std: Triple | None = None
    unreadable: tuple[str, ...] = ()  # keys whose values made no sense


class Facts(Struct, frozen=True, kw_only=True):
    """What is known of a model before its family is."""

    outputs: Mapping[str, tuple[int, ...]]  # shapes of one job, in the graph's order
    arrays: Mapping[str, npt.NDArray[Any]]  # what a noise picture gave: the first job's outputs
    others: tuple[Mapping[str, npt.NDArray[Any]], ...] = ()  # what further trial pictures gave
    operators: Mapping[str, str] = {}  # that compute the outputs, past those that move numbers alone
    insisted: bool = False  # the user names the family, so that values and counts that are odd for it do not matter
    inputs: tuple[str, ...]
    size: tuple[int, int]  # height, width of a row
    nc: int | None = None  # number of classes, where it is known
    names: tuple[str, ...] = ()  # of them
    varying: frozenset[str] = frozenset()  # outputs whose first dimension a picture decides
    kpt_shape: tuple[int, int] | None = None
    background: int | None = None  # the user's option: the class slot that means "nothing"
    metadata: Metadata = Metadata()
    task: str | None = None  # the user's, else the metadata's
    task_by: str = "metadata"  # who names it

    @property
    def because(self) -> str:
        """Who names the task, as evidence."""
        return f"{self.task_by} names the task: {self.task}"

    def only_of_rank(self, rank: int) -> tuple[str, tuple[int, ...]] | None:
        """Name and shape of the one output with so many dimensions (without the batch); None unless there is one."""
        found = [(name, shape) for name, shape in self.outputs.items() if len(shape) == rank]
        return found[0] if len(found) == 1 else None

    @property
    def rows(self) -> dict[str, int]:
        """Outputs that are a plain row of numbers, [n], [1, n] or [n, 1, 1], and their lengths."""
        return {
            name: math.prod(shape) for name, shape in self.outputs.items() if math.prod(shape) == max(shape, default=1)
        }

    def besides(self, *names: str | None) -> tuple[str, ...]:
        """The other outputs."""
        return tuple(name for name in self.outputs if name not in names)

    def trials(self, name: str) -> list[npt.NDArray[Any]]:
        """What every trial picture gave in this output."""
        return [outputs[name] for outputs in (self.arrays, *self.others)]

    def cells(self, strides: tuple[int, ...]) -> int:
        """Number of grid cells of a row, over all these strides."""
        height, width = self.size
        return sum((height // stride) * (width // stride) for stride in strides)

    def counts(self, *levels: tuple[int, ...]) -> set[int]:
        """Numbers of grid cells for any of these sets of strides; sides that are no multiples are cut or rounded up."""
        height, width = self.size
        up = {sum(-(-height // stride) * -(-width // stride) for stride in strides) for strides in levels}
        return up | {self.cells(strides) for strides in levels}

    @property
    def shown(self) -> str:
        """The outputs, for people."""
        return ", ".join(f"{name} {list(shape)}" for name, shape in self.outputs.items())
