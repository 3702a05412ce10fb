"""What a family is: everything that is known of one kind of model, in one place.

A file of `stages/families/known` describes one family: what its outputs look like, how its pictures are prepared, how
its outputs are read, and how such a model is exported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from msgspec import Struct

from parallel_infer.model_spec import ModelSpec
from stages.candidates import Layout
from stages.families.facts import Facts

Triple = tuple[float, float, float]
Maker = Callable[[ModelSpec, int], Layout]  # of a reader; the number is that of values per object after its class

PIXELS: tuple[Triple, Triple] = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # mean and std that leave 0..255 as it is
UNIT: tuple[Triple, Triple] = (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)
# torchvision's ImageNet statistics, times 255
IMAGENET: tuple[Triple, Triple] = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

ANY_EXPORT = (
    'torch.onnx.export(model, example, "MODEL.onnx", input_names=["images"], output_names=["output"], '
    'dynamic_axes={"images": {0: "batch"}, "output": {0: "batch"}})'
)


class Recipe(NamedTuple):
    """How pictures are prepared where neither metadata nor the user says otherwise: see `Preprocess`."""

    resize: str = "letterbox"
    statistics: tuple[Triple, Triple] = UNIT  # mean and std of pixels 0..255
    color: str = "rgb"
    crop_fraction: float = 1.0
    filter: str = "linear"
    pad: int = 114


_LETTERBOX = Recipe()


class Strength(IntEnum):
    """How good the reason for a claim is; the strongest claim whose outputs fit wins."""

    NAMES = 1  # inputs and outputs have names that only this family has
    SAID = 2  # the metadata names this very kind of export
    TASK = 3  # user or metadata name a task of this family, whose outputs have such shapes
    GUESS = 4  # the same, and other families have such shapes too
    SHAPE = 5  # nobody names anything: shapes and values alone


class Claim(NamedTuple):
    """A family says that a model is its own, and why. The outputs have to fit as well."""

    strength: Strength
    task: str
    evidence: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Fit(Struct, frozen=True):
    """The outputs fit: why, and what the decoder has to know."""

    nc: int
    because: str
    parameters: dict[str, Any] = {}
    names: tuple[str, ...] = ()  # of classes, where all models of the family have the same
    recipe: Recipe | None = None  # where it is not the family's usual one
    guessed: bool = False  # nothing says that its pictures are prepared so
    unused: tuple[str, ...] = ()  # outputs that nobody reads
    warnings: tuple[str, ...] = ()


class Misfit(Struct, frozen=True):
    """The outputs do not fit: what was found, and what the family's look like."""

    why: str


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family.

    `readers` holds the tasks it can do, and for each what makes the reader of its outputs (None: the task reads them
    itself). `fits` says whether the outputs are this family's for a task. `claims` says what speaks for this family
    where the user does not name one; nothing does where it is left out.
    """

    name: str
    readers: Mapping[str, Maker | None]
    fits: Callable[[Facts, str], Fit | Misfit]
    claims: Callable[[Facts], Iterator[Claim]] = lambda facts: iter(())
    recipe: Recipe = _LETTERBOX
    needs_nms: bool = False  # one object may have many boxes
    ready_masks: bool = False  # masks come as they are, and not as coefficients of prototypes
    options: tuple[str, ...] = ()  # options of a model that only some families use
    export: str = ANY_EXPORT  # how to export one with a batch of any size

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks it can do."""
        return tuple(self.readers)
