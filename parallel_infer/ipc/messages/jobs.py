"""A job between the gateway and the dispatcher: admitted, refused, and answered by a postprocess worker."""

from __future__ import annotations

from enum import IntEnum
from typing import final

from msgspec import Struct

from parallel_infer.crops import CutOut, PicturePart
from parallel_infer.protocol import Tensor

OWN_PRIORITY = 101  # of the gateway's own jobs: above all that clients may ask for, and a full queue takes them
TIMES = ("queue", "decode", "batch_wait", "infer", "post_wait", "postprocess")
Geometry = tuple[float, ...]  # opaque to the engine; stages.geometry.Geometry


class PayloadKind(IntEnum):
    """What a job's payload is."""

    PICTURE = 0  # encoded bytes
    FRAME = 1  # uint8 BGR [h, w, 3]
    TENSORS = 2  # ready inputs, one after the other


class AnswerFormat(IntEnum):
    """How the client wants its answer."""

    ARRAYS = 0
    OBJECTS = 1


class SlotFate(IntEnum):
    """Whether the ingress slot of a refused job may be used again."""

    FREE = 0
    HELD = 1  # a worker may still read it; Released follows


class SlotRef(Struct, frozen=True, array_like=True):
    """`size` bytes at slot `index` of a byte ring, claimed under `generation`."""

    ring: str
    index: int
    generation: int
    size: int
    slot_size: int


@final
class Admit(Struct, frozen=True, array_like=True, tag=1):
    """From the gateway: a job whose payload lies in `ref`."""

    job: int
    model: str
    ref: SlotRef
    kind: PayloadKind
    tensors: tuple[Tensor, ...]
    options: bytes
    format: AnswerFormat
    received: float
    deadline: float
    priority: int
    source: str  # not empty: replaces a queued job of the same source
    part: PicturePart | None = None  # of a request of several jobs; None: it is one of its own


class CancelJob(Struct, frozen=True, array_like=True, tag=2):
    """From the gateway: the client does not want this job any more."""

    job: int
    held: bool = False  # its payload is kept until it is sure that nobody reads it


class AllCut(Struct, frozen=True, array_like=True, tag=35):
    """From the gateway: nothing will be cut out of this picture (`PicturePart.picture`) but what has been asked for."""

    picture: int


class Overdue(Struct, frozen=True, array_like=True, tag=19):
    """From the gateway: it answered this job itself, its deadline being past; Released tells when its slot is free."""

    job: int


class Refused(Struct, frozen=True, array_like=True, tag=20):
    """From the dispatcher: this job gets an error; `reason` and `retry_after` as `protocol.Error` has them."""

    job: int
    code: str
    text: str
    slot: SlotFate
    reason: str = ""
    retry_after: float = 0.0


class Released(Struct, frozen=True, array_like=True, tag=21):
    """From the dispatcher: nobody reads the slot of this refused job any more."""

    job: int


class AnswersInDoubt(Struct, frozen=True, array_like=True, tag=33):
    """From the dispatcher: the worker that answered these jobs has died, perhaps before its answers had left it."""

    jobs: tuple[int, ...]


class Answered(Struct, frozen=True, array_like=True, tag=23):
    """From a postprocess worker: the answer of a job. `payload` counts the frame that holds it; 0: `small` does.

    Of a job with selections, `crops` are what they cut out, and `left_out` counts by step what was too much.
    """

    job: int
    body: bytes
    small: bytes
    payload: int
    times: tuple[float, ...]  # as in TIMES
    batch: int
    crops: tuple[CutOut, ...] = ()
    left_out: tuple[int, ...] = ()


class JobError(Struct, frozen=True, array_like=True, tag=24):
    """From a postprocess worker: this job gets an error instead of an answer."""

    job: int
    code: str
    text: str
