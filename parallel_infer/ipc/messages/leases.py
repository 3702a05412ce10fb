"""Work between the dispatcher and its workers: a lease of rows or slots, and how the work went."""

from __future__ import annotations

from typing import final

from msgspec import Struct

from parallel_infer.crops import PicturePart
from parallel_infer.ipc.messages.jobs import AnswerFormat, Geometry, PayloadKind, SlotRef
from parallel_infer.protocol import Tensor

EPOCH_BITS = 40  # a lease's number has the epoch of its dispatcher above so many bits


class WorkerReady(Struct, frozen=True, array_like=True, tag=3):
    """From a worker: it has started and holds no lease.

    `address` is where it takes leases that other workers hand on to it; empty: nowhere. Of infer workers alone:
    `times` are measured seconds by batch size, `costs` seconds of processor time, `cores` is how many processor cores a
    batch takes, 0 where another device computes it, and `at_once` how many batches it may have begun.
    """

    stage: str
    model: str
    times: dict[int, float]
    cores: int = 0
    costs: dict[int, float] = {}
    address: str = ""
    at_once: int = 1


class DecodeLease(Struct, frozen=True, array_like=True, tag=40):
    """Decode the payload in `ref` into `row` of the model's input ring.

    Before that, `done` pictures need not be kept any more. `keep` that of `part`: more jobs about it will follow.
    """

    lease: int
    model: str
    ref: SlotRef
    kind: PayloadKind
    tensors: tuple[Tensor, ...]
    options: bytes
    row: int
    part: PicturePart | None = None
    keep: bool = False
    done: tuple[int, ...] = ()


@final
class Decoded(Struct, frozen=True, array_like=True, tag=4):
    """From a decode worker: the row is written.

    `kept` bytes hold the picture's pixels for further jobs; 0: they are gone. `reused`: they were there, and no payload
    was decoded.
    """

    lease: int
    geometry: Geometry
    started: float
    seconds: float
    kept: int = 0
    reused: bool = False


class DecodeFailed(Struct, frozen=True, array_like=True, tag=5):
    """From a decode worker: this job cannot become a row, and why."""

    lease: int
    code: str
    text: str
    started: float = 0.0
    seconds: float = 0.0


class PostJob(Struct, frozen=True, array_like=True):
    """One job of a postprocess lease. `times` as in TIMES up to infer."""

    job: int
    index: int  # in the batch
    geometry: Geometry
    options: bytes
    format: AnswerFormat
    times: tuple[float, ...]
    part: PicturePart | None = None


class PostLease(Struct, frozen=True, array_like=True, tag=42):
    """Answer these jobs from output slot `slot`, which holds a batch of `batch`."""

    lease: int
    model: str
    slot: int
    batch: int
    inferred: float
    shapes: dict[str, tuple[int, ...]]
    jobs: tuple[PostJob, ...]


class Onward(Struct, frozen=True, array_like=True):
    """The way ahead of a batch of one: who answers it. Whoever has run it hands `lease` on to `address`.

    `inferred`, `shapes` and the `times` from `batch_wait` on are not known yet. `decoded` is when its row was written.
    """

    address: str
    lease: PostLease
    decoded: float


class InferLease(Struct, frozen=True, array_like=True, tag=41):
    """Run the model on these rows into output slot `slot`."""

    lease: int
    rows: tuple[int, ...]
    slot: int
    alone: bool  # one row, and nothing else is computed now or will be soon
    onward: Onward | None = None  # None, or a failed row: the dispatcher hears of it first


class FailedRow(Struct, frozen=True, array_like=True):
    """One job of a batch that failed, by its position in the batch."""

    index: int
    code: str
    text: str


@final
class Inferred(Struct, frozen=True, array_like=True, tag=6):
    """From an infer worker: outputs lie in the leased slot; `shapes` of those the graph does not fix.

    `cost` is the processor time of the run, all threads together; 0.0 where another device computed it.
    """

    lease: int
    started: float
    seconds: float
    gathered: int  # rows that had to be copied together
    shapes: dict[str, tuple[int, ...]]
    failed: tuple[FailedRow, ...]
    cost: float = 0.0


@final
class Postprocessed(Struct, frozen=True, array_like=True, tag=7):
    """From a postprocess worker: all jobs of the lease are answered."""

    lease: int
    seconds: float
    started: float = 0.0


class Recall(Struct, frozen=True, array_like=True, tag=46):
    """To a worker: who was to hand this lease on to you has died. Unless you have begun it, never do."""

    lease: int


class Recalled(Struct, frozen=True, array_like=True, tag=34):
    """From a worker: this lease will not be begun any more. If it was done before, that was said before."""

    lease: int
