"""Which operators are put into 8 bits, and which of several copies is worth keeping. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

from msgspec import Struct

from parallel_infer.errors import ModelRejected
from parallel_infer.tools.quantize.agreement import Agreement

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_LEAST_CLASSES = 0.95  # agreement below which answers have moved far
_LEAST_OBJECTS = 0.9


class Recipe(Enum):
    """Where values are rounded to 8 bits."""

    LAYERS = "layers"
    """What convolutions and matrix products read, and nothing else. Activation functions such as SiLU stay in the
    provider's own precision, where they are computed together with the convolution before them."""

    SUMS = "sums"
    """What layers and sums read, so that residual connections carry 8 bits."""

    OPERATORS = "operators"
    """Everything that ONNX Runtime can compute in 8 bits."""

    def arguments(self) -> dict[str, Any]:
        """Of ONNX Runtime's `quantize_static`."""
        if self is Recipe.OPERATORS:
            return {}
        kinds = [*_LAYERS, *(["Add"] if self is Recipe.SUMS else [])]
        return {"op_types_to_quantize": kinds, "extra_options": {"OpTypesToExcludeOutputQuantization": kinds}}


class Speed(Struct, frozen=True, kw_only=True):
    """Milliseconds per run of the graph, the least of rounds in turns, same settings and threads."""

    provider: str  # of the model
    provider_after: str  # of the copy; another one where that provider computes it wrongly
    threads: int
    batch: int
    before_ms: float
    after_ms: float

    @property
    def gain(self) -> float:
        """How many times as fast the copy is."""
        return self.before_ms / self.after_ms


class Trial(Struct, frozen=True, kw_only=True):
    """A copy made by a recipe, and how it compares."""

    recipe: str
    size: int  # bytes
    speed: Speed
    agreement: Agreement


def least_agreement(task: str) -> float:
    """The share of answers that have to stay the same, 0 to 1."""
    return _LEAST_CLASSES if task == "classify" else _LEAST_OBJECTS


def best(trials: Sequence[Trial]) -> Trial:
    """The fastest copy whose answers hold; where none does, the one whose answers moved least."""
    holding = [trial for trial in trials if _holds(trial)]
    if holding:
        return max(holding, key=lambda trial: trial.speed.gain)
    return max(trials, key=lambda trial: trial.agreement.share)


def check_worth(trial: Trial) -> None:
    """Raises ModelRejected for a copy that answers otherwise or is not faster than the model."""
    found, speed = trial.agreement.share, trial.speed
    if not _holds(trial):
        raise ModelRejected(
            f"the answers moved far: agreement {found:.1%} at best (recipe {trial.recipe}), at least "
            f"{least_agreement(trial.agreement.task):.0%} is wanted; give more pictures or another --calibration, or "
            "--anyway to write that copy all the same"
        )
    if speed.gain <= 1:
        raise ModelRejected(
            f"the best copy (recipe {trial.recipe}) takes {speed.after_ms:.1f} ms where the model takes "
            f"{speed.before_ms:.1f} ms ({speed.provider_after}); --anyway writes it all the same, to save memory"
        )


def _holds(trial: Trial) -> bool:
    return trial.agreement.share >= least_agreement(trial.agreement.task)
