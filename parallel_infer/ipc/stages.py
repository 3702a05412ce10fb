"""What a worker, or a loop in one process, asks of each stage. `stages` implements it and is loaded by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy.typing as npt

from parallel_infer.crops import CutOut, PicturePart
from parallel_infer.ipc.messages import FailedRow, ModelPlan, PayloadKind, PostJob
from parallel_infer.protocol import Tensor

Arrays = dict[str, npt.NDArray[Any]]


class HasArrays(Protocol):
    """A ring, or anything else with one array [slots, ...] per tensor."""

    @property
    def arrays(self) -> Arrays: ...


class BatchResult(Protocol):
    """What became of a batch."""

    @property
    def gathered(self) -> int:
        """Rows that were copied together."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of outputs whose shape only the run tells."""

    @property
    def failed(self) -> tuple[FailedRow, ...]: ...


class EncodedAnswer(Protocol):
    """An answer as it travels."""

    @property
    def body(self) -> bytes:
        """Of the header, MessagePack."""

    @property
    def payload(self) -> list[npt.NDArray[Any]]:
        """The payload's pieces, in order."""

    @property
    def crops(self) -> tuple[CutOut, ...]:
        """What the job's selections cut out."""

    @property
    def left_out(self) -> tuple[int, ...]:
        """By selection, the objects that were too many."""


class WrittenRow(Protocol):
    """How a row was written."""

    @property
    def geometry(self) -> tuple[float, ...]: ...

    @property
    def kept(self) -> int:
        """Bytes in which the picture's pixels are kept for further jobs; 0: they are not."""

    @property
    def reused(self) -> bool:
        """Whether no payload was decoded."""


class DecodeStage(Protocol):
    """Decodes payloads for every model."""

    def add(self, plan: ModelPlan) -> None:
        """Get ready for a model."""

    def decode(
        self,
        name: str,
        kind: PayloadKind,
        tensors: tuple[Tensor, ...],
        payload: memoryview,
        options: bytes,
        row: Arrays,
        part: PicturePart | None = None,
        *,
        keep: bool = False,
    ) -> WrittenRow:
        """Write the row of a job. Raises BadInput.

        Jobs of one `part.picture` that come one after the other are decoded once, and with `keep` so are those that
        come later, until the picture is forgotten. With a crop, the row is that of the crop, and so is the geometry.
        """

    def forget(self, pictures: Iterable[int] | None) -> None:
        """Keep these pictures no more; None: any."""


class BatchUnderWay(Protocol):
    """A batch that was begun."""

    def wait(self) -> None:
        """Sleep until it has run, in any thread."""

    def finish(self) -> BatchResult:
        """What became of it, once `wait` has returned; in the thread that began it."""


class InferStage(Protocol):
    """Runs one model from its rows into its outputs."""

    @property
    def provider(self) -> str:
        """Name and precision, as people are told."""

    @property
    def on_processor(self) -> bool:
        """Whether the cores compute it."""

    @property
    def at_once(self) -> int:
        """Batches that may be under way at once: more than one where a device computes beside its copies."""

    def run(self, rows: tuple[int, ...], slot: int, alone: bool = False) -> BatchResult:
        """Run the model on these rows into this output slot; a row that fails does not fail the others."""

    def begin(self, rows: tuple[int, ...], slot: int, alone: bool = False) -> BatchUnderWay:
        """Begin to; batches are over in the order they were begun in."""


class PostprocessStage(Protocol):
    """Makes answers for every model."""

    def add(self, plan: ModelPlan) -> None:
        """Get ready for a model."""

    def answer(self, name: str, outputs: Arrays, job: PostJob) -> EncodedAnswer:
        """The answer of one job from its outputs, without the batch dimension. Raises InferError."""


class Stages(Protocol):
    """Makes the stages."""

    def decode(self, limits: Mapping[str, Any]) -> DecodeStage:
        """`limits` are those of pictures, `max_pixels` and `formats`, and of their memory, `kept` in bytes."""

    def infer(self, plan: ModelPlan, rows: HasArrays, outputs: HasArrays) -> InferStage:
        """Raises ConfigError or ModelRejected where the model cannot be loaded as the plan says."""

    def postprocess(self) -> PostprocessStage: ...
