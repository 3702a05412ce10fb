"""The public wire: what clients and the gateway say to each other. Declarations only; docs/protocol.md is its manual.

Every message is `[header, payload?]`, the header a MessagePack map with `v` and `type`. Requests are checked against
these types field by field; an unknown field is an error, so that no option is ever silently ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from parallel_infer.limits import MAX_NAME

VERSION: Literal[1] = 1

RequestId = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
Dimension = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Version = Literal[1]
STOPPED = "stopped"  # reason of the last word of a server: it has replied to all that it took
MAX_TIMEOUT = 3600.0  # seconds
LEAST_PRIORITY, MOST_PRIORITY = -100, 100
MAX_TRACE = 60.0  # seconds
MAX_LOOK = 60.0  # seconds
MAX_COUNTS = 100  # of a report
MAX_COUNTED = 64  # characters of the name of a line, a zone or a class in it
MAX_STEPS = 4096  # characters of a chain's text
MAX_SOURCE = 128  # characters of a live stream's name


class Tensor(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`[name, dtype, shape]` of an array in a payload; arrays lie one after the other, C order, little endian."""

    name: Annotated[str, Meta(max_length=128)]
    dtype: Annotated[str, Meta(max_length=16)]
    shape: Annotated[tuple[Dimension, ...], Meta(max_length=8)]


class LentSlot(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`[ring, index, size]`: the payload lies in a slot of a ring that the gateway lent to this client."""

    ring: RequestId
    index: Annotated[int, Meta(ge=0, le=65535)]
    size: Annotated[int, Meta(ge=0, le=2**40)]


class _Request(Struct, frozen=True, kw_only=True, tag_field="type", forbid_unknown_fields=True):
    v: Version = VERSION
    id: RequestId


class Infer(_Request, frozen=True, kw_only=True, tag="infer"):
    """One job. The payload is the second frame, or lies in `slot`."""

    model: Name
    kind: Literal["picture", "frame", "tensors"] = "picture"
    tensors: Annotated[tuple[Tensor, ...], Meta(max_length=32)] = ()  # frame: one, [h, w, 3] uint8 BGR
    slot: LentSlot | None = None
    timeout: Annotated[float, Meta(gt=0, le=MAX_TIMEOUT)] | None = None  # seconds; None: the server's default
    priority: Annotated[int, Meta(ge=LEAST_PRIORITY, le=MOST_PRIORITY)] = 0  # higher goes first
    options: msgspec.Raw = msgspec.Raw(b"\x80")  # a map; the model's task knows the keys
    format: Literal["arrays", "objects"] = "arrays"
    source: Annotated[str, Meta(max_length=MAX_SOURCE)] = ""  # the live stream this frame belongs to
    drop: Literal["none", "latest"] = "none"  # latest: replaces a queued frame of the same source
    client: Annotated[str, Meta(max_length=128)] = ""  # from a door: whom it asks for; counts at the inside door only
    part: bool | UnsetType = UNSET  # from a door: it belongs to a request that another job is counted for


class Cancel(_Request, frozen=True, kw_only=True, tag="cancel"):
    """Forget the job with request id `job` if it has not begun. It is answered with DROPPED; this is not answered."""

    job: RequestId


class Lend(_Request, frozen=True, kw_only=True, tag="lend"):
    """Ask for a ring of `slots` slots of `size` bytes on the same machine; asked again with `ring`, keeps it alive."""

    slots: Annotated[int, Meta(ge=1, le=1024)] = 1
    size: Annotated[int, Meta(ge=1, le=2**32)] = 1
    ring: RequestId | None = None


class GiveBack(_Request, frozen=True, kw_only=True, tag="give_back"):
    """Give a lent ring back."""

    ring: RequestId


class Hello(_Request, frozen=True, kw_only=True, tag="hello"):
    """What this server takes. Who has said it is told when the server begins to stop and when it has stopped.

    Errors of id 0 say so, with the reasons "stopping" and "stopped".
    """


class Greeting(Struct, frozen=True):
    """The result of Hello: limits of this server, in bytes, and who it is."""

    max_payload: int
    max_message: int  # of one frame
    instances: tuple[str, ...] = ()  # a name drawn at its start; a router's also has those of all behind it


class Models(_Request, frozen=True, kw_only=True, tag="models"):
    """What is served; with `detail` as doors need it."""

    detail: bool = False


class Status(_Request, frozen=True, kw_only=True, tag="status"):
    """How the server is: processes, queues, rings, counters."""


class Ready(_Request, frozen=True, kw_only=True, tag="ready"):
    """Whether a synthetic job passes through every stage of every model."""


class Trace(_Request, frozen=True, kw_only=True, tag="trace"):
    """What every process did for the next `seconds`, told when they are over."""

    seconds: Annotated[float, Meta(gt=0, le=MAX_TRACE)] = 5.0


class Look(_Request, frozen=True, kw_only=True, tag="look"):
    """The next frame of a live source that is answered, and its answer. Only the server's own doors are told."""

    source: Annotated[str, Meta(min_length=1, max_length=256)]  # as the status calls it
    seconds: Annotated[float, Meta(gt=0, le=MAX_LOOK)] = 10.0


class Counted(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`[what, place, kind, number]`: objects of a class that crossed a line, or are or were in a zone."""

    what: Literal["in", "out", "present", "entered"]  # the first two of a line, the others of a zone
    place: Annotated[str, Meta(max_length=MAX_COUNTED)]
    kind: Annotated[str, Meta(max_length=MAX_COUNTED)]
    number: Count


class Report(_Request, frozen=True, kw_only=True, tag="report"):
    """How a live source is, as only its own client can tell. The payload may be its last frame as the client shows it.

    That is a JPEG of at most `pixels` at its longer side. It is asked for by the result of an earlier report: somebody
    looks where that is {"watched": true, "pixels": 384}.
    """

    source: Annotated[str, Meta(min_length=1, max_length=128)]  # as in `infer`
    state: Literal["connecting", "live", "reconnecting", "ended", "failed"]
    message: Annotated[str, Meta(max_length=512)] = ""
    dropped: Count = 0  # frames that gave way to newer ones: before they were sent, and in the server
    expired: Count = 0
    failed: Count = 0
    restarts: Count = 0  # of the capture
    counts: Annotated[tuple[Counted, ...], Meta(max_length=MAX_COUNTS)] = ()  # at lines and zones


class Load(_Request, frozen=True, kw_only=True, tag="load"):
    """Load a model file of the server's machine, or replace the model of that name."""

    name: Name
    path: Annotated[str, Meta(min_length=1, max_length=4096)]
    options: dict[str, Any] = {}


class LoadChain(_Request, frozen=True, kw_only=True, tag="load_chain"):
    """Serve a chain of models that are served, or replace the chain of that name."""

    name: Name
    steps: Annotated[str, Meta(min_length=1, max_length=MAX_STEPS)]


class Reload(_Request, frozen=True, kw_only=True, tag="reload"):
    """Look at the file of a model that is served again, and serve what it holds now."""

    name: Name


class Unload(_Request, frozen=True, kw_only=True, tag="unload"):
    """Stop serving a model or a chain."""

    name: Name


class Stop(_Request, frozen=True, kw_only=True, tag="stop"):
    """Drain and stop the server."""


Request = (
    Infer
    | Cancel
    | Lend
    | GiveBack
    | Hello
    | Models
    | Status
    | Ready
    | Trace
    | Look
    | Report
    | Load
    | LoadChain
    | Reload
    | Unload
    | Stop
)


class RequestIdOnly(Struct, frozen=True):
    """Reads the id of a request that is wrong otherwise, so that its error finds its way."""

    id: RequestId


class PartError(Struct, frozen=True):
    """Why one part of an answer is missing, as in Error."""

    code: str
    message: str


class AnswerPart(Struct, frozen=True, kw_only=True):
    """What one model says, in the answer of several: an answer or an error. `object` is whom it hangs under."""

    model: str
    answer: AnswerBody | None = None
    error: PartError | None = None
    object: int = -1
    timing: dict[str, float] = {}
    batch: int = 1


class AnswerBody(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An answer of format "arrays". The arrays themselves are the payload, in this order.

    Behind those of an answer follow the arrays of its `parts` (of a fan, one for each model), or of its `children` (of
    a chain, by object). `left_out` counts by model the objects that were too many to be asked about.
    """

    task: str
    model: str
    width: int = 0  # of the original picture, in pixels; 0 for tensors
    height: int = 0
    arrays: tuple[Tensor, ...] = ()
    names: dict[int, str] = {}  # of the classes in this answer
    parts: tuple[AnswerPart, ...] = ()
    children: tuple[AnswerPart, ...] | None = None  # None: it is no chain's
    left_out: dict[str, int] = {}


class _Reply(Struct, frozen=True, kw_only=True, tag_field="type"):
    v: int = VERSION
    id: int


class Answer(_Reply, frozen=True, kw_only=True, tag="answer"):
    """`answer` is an AnswerBody (format "arrays") or the documented result map (format "objects").

    `timing` is in seconds per stage and wait, `batch` the size of the batch the job was part of.
    """

    answer: msgspec.Raw
    timing: dict[str, float] = {}
    batch: int = 1


class Error(_Reply, frozen=True, kw_only=True, tag="error"):
    """Why there is no answer: a code of parallel_infer.errors and a text for people. `id` is 0 where unreadable.

    `reason` tells errors of one code apart, where a program may want to: "stopping" for a request that was not taken,
    "unknown_ring" for one about a ring that is not lent, or no more, "queue_full" for a queue without a free place.
    `retry_after`: seconds for which asking again is in vain, as far as the server can tell; 0.0 where it cannot.
    """

    code: str
    message: str
    reason: str = ""
    retry_after: float = 0.0


class Result(_Reply, frozen=True, kw_only=True, tag="result"):
    """The answer to everything but Infer."""

    result: msgspec.Raw


Reply = Answer | Error | Result
