"""What the processes of a server say to each other. Declarations only, grouped by receiver; nothing is pickled.

Every frame holds a list of messages: what waits together travels together. Times are seconds of the machine-wide
monotonic clock. Pixels and tensors never travel; a `SlotRef` says where they lie.
"""

from __future__ import annotations

from enum import IntEnum
from typing import final

from msgspec import Raw, Struct

from parallel_infer.execution_providers import ProviderName
from parallel_infer.model_spec import ModelSpec, PrecisionName
from parallel_infer.protocol import Tensor
from parallel_infer.shm.ring import RingSpec


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


Geometry = tuple[float, ...]  # opaque to the engine; stages.geometry.Geometry


class SessionOptions(Struct, frozen=True, kw_only=True):
    """How a model is run: options of the server and of the model by the same names, plain values.

    `stages.infer.session_config` makes of them what `parallel_infer.inference` takes.
    """

    provider: ProviderName = "auto"
    precision: PrecisionName = "auto"
    threads: int = 1
    alone_threads: int = 1
    inter_threads: int = 1
    streams: int = 1
    optimization: str = "all"
    cpu_arena: bool = True
    memory_pattern: bool = True
    device: int = 0
    gpu_mem_limit_mb: int = 0  # 0: no limit
    arena_strategy: str = "power-of-two"
    page_locked: bool = True
    cuda_graphs: bool = True
    cache: str | None = None
    profile: str | None = None


class ModelPlan(Struct, frozen=True):
    """A model as it is served: everything any process needs to take part."""

    name: str
    version: int
    spec: ModelSpec
    rows: RingSpec
    outputs: RingSpec
    max_batch: int
    preferred_batch: int
    fixed_batch: int  # 0: any size will do
    max_queue_delay: float  # seconds
    queue_size: int
    instances: int
    weight: float
    decode: str  # "exact" or "fast"
    session: SessionOptions

    @property
    def key(self) -> str:
        """Tells versions of one name apart, between the processes of a server."""
        return self.name if self.version == 1 else f"{self.name}#{self.version}"


# --- to everybody who connects to the dispatcher ----------------------------------------------------------------------


class Register(Struct, frozen=True, array_like=True, tag=80):
    """From the dispatcher to a peer that is new to it: announce yourself (again).

    A worker does so once it has finished what an earlier dispatcher gave it; the gateway admits its pending jobs again.
    """

    epoch: int


# --- to the dispatcher -----------------------------------------------------------------------------------------------


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


class CancelJob(Struct, frozen=True, array_like=True, tag=2):
    """From the gateway: the client does not want this job any more."""

    job: int
    held: bool = False  # its payload is kept until it is sure that nobody reads it


class Overdue(Struct, frozen=True, array_like=True, tag=19):
    """From the gateway: it answered this job itself, its deadline being past; Released tells when its slot is free."""

    job: int


class WorkerReady(Struct, frozen=True, array_like=True, tag=3):
    """From a worker: it has started and holds no lease.

    Of infer workers alone: `times` are measured seconds by batch size, `costs` seconds of processor time, `cores` is
    how many processor cores a batch takes, 0 where another device computes it.
    """

    stage: str
    model: str
    times: dict[int, float]
    cores: int = 0
    costs: dict[int, float] = {}


@final
class Decoded(Struct, frozen=True, array_like=True, tag=4):
    """From a decode worker: the row is written."""

    lease: int
    geometry: Geometry
    started: float
    seconds: float


class DecodeFailed(Struct, frozen=True, array_like=True, tag=5):
    """From a decode worker: this job cannot become a row, and why."""

    lease: int
    code: str
    text: str
    started: float = 0.0
    seconds: float = 0.0


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


class WorkerDown(Struct, frozen=True, array_like=True, tag=8):
    """From the supervisor: this worker is dead and reaped; what it held may be used again."""

    worker: str


class StatusQuery(Struct, frozen=True, array_like=True, tag=9):
    """From the gateway or the supervisor: tell how things are, under this number."""

    query: int


class TraceQuery(Struct, frozen=True, array_like=True, tag=31):
    """From the gateway: note what the workers do for so many seconds, then tell, under this number."""

    query: int
    seconds: float


class PrepareModel(Struct, frozen=True, array_like=True, tag=16):
    """From the supervisor: a model is being loaded. Its workers announce themselves; jobs come after OpenModel."""

    plan: ModelPlan


class ModelFailed(Struct, frozen=True, array_like=True, tag=17):
    """From the supervisor: the workers of this model (its key) keep dying."""

    model: str
    text: str


class ProcessState(Struct, frozen=True):
    """A child process, for the status."""

    state: str  # "up" or "down"
    restarts: int


class DoorActivity(Struct, frozen=True, array_like=True, tag=72):
    """From a door: what it has done since it started. Sizes are in bytes, of requests and replies as they came."""

    pid: int = 0
    requests: dict[str, int] = {}  # by status, in the words of its protocol
    refused: dict[str, int] = {}  # those that got an error, by its code
    in_flight: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class DoorState(Struct, frozen=True, kw_only=True):
    """A door for clients of another protocol, for the status."""

    kind: str
    addresses: tuple[str, ...]
    state: str  # "up": it listens and reaches the gateway; else "down"
    pid: int  # 0: it has no process
    restarts: int
    requests: dict[str, int]  # as DoorActivity has them, since its process started
    refused: dict[str, int]
    in_flight: int
    bytes_in: int
    bytes_out: int


class ModelReport(Struct, frozen=True, kw_only=True):
    """A version of a model as the supervisor sees it, for the status."""

    name: str
    version: int
    state: str
    digest: str
    provider: str
    memory: int  # bytes of its rings


class ProcessReport(Struct, frozen=True, array_like=True, tag=18):
    """From the supervisor: processes by name, models by key and doors by name as it sees them, for the status."""

    processes: dict[str, ProcessState]
    models: dict[str, ModelReport]
    doors: dict[str, DoorState] = {}


class OpenModel(Struct, frozen=True, array_like=True, tag=10):
    """From the supervisor: serve this model now, instead of an older one of the same name."""

    plan: ModelPlan


class CloseModel(Struct, frozen=True, array_like=True, tag=11):
    """From the supervisor: take no more jobs of this model (its key); ModelClosed follows its last answer."""

    model: str


class Drain(Struct, frozen=True, array_like=True, tag=12):
    """From the supervisor: the server is stopping. The gateway lets nobody in any more; what is inside goes on."""


class GatewayUp(Struct, frozen=True, array_like=True, tag=13):
    """From a gateway that was greeted: the jobs it is owed follow; those of another have nobody to answer to.

    `epoch` is that of the Register it answers, so that nobody takes it for an answer to another dispatcher.
    """

    epoch: int


class StopWorkers(Struct, frozen=True, array_like=True, tag=14):
    """From the supervisor: let the workers go, then stop. What is sent has until `until` to leave."""

    until: float


class Expect(Struct, frozen=True, array_like=True, tag=15):
    """From the supervisor to a new dispatcher: who lives already.

    It asks each to announce itself, and hands out nothing before each of `workers` has, or is down.
    """

    workers: tuple[str, ...]
    gateway: str  # empty while there is none
    starting: tuple[str, ...] = ()  # workers that hold no lease yet; an earlier dispatcher may not have greeted them


# --- to the gateway --------------------------------------------------------------------------------------------------


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


class SlotCount(Struct, frozen=True):
    """The slots of a ring."""

    slots: int
    free: int


class Leaked(Struct, frozen=True):
    """Slots that are taken though no job needs them: always 0."""

    rows: int
    outputs: int


class ModelStatus(ModelReport, frozen=True, kw_only=True):
    """A model as the dispatcher sees it; docs/protocol.md describes the fields."""

    unavailable: str
    jobs: int
    queued: int
    decoding: int
    ready: int
    instances: int
    rows: SlotCount
    outputs: SlotCount
    answered: int
    failed: int
    expired: int
    dropped: int
    rejected: int
    batches: int
    batched_rows: int
    gathered_rows: int
    batch_sizes: dict[str, int]
    batch_target: int
    batch_seconds: float
    leaked: Leaked


class WorkerStatus(Struct, frozen=True):
    """A worker as the dispatcher sees it."""

    stage: str
    model: str
    leases: int
    done: int
    busy_seconds: float


class ProcessTime(Struct, frozen=True):
    """Processor time that a process has used."""

    cpu_seconds: float


class DispatcherStatus(Struct, frozen=True):
    """The dispatcher's part of the status, and the supervisor's."""

    jobs: int
    draining: bool
    models: dict[str, ModelStatus]
    workers: dict[str, WorkerStatus]
    processes: dict[str, ProcessState]
    refused: dict[str, int]
    dispatcher: ProcessTime
    doors: dict[str, DoorState] = {}


class StatusReply(Struct, frozen=True, array_like=True, tag=22):
    """From the dispatcher: the answer to a StatusQuery."""

    query: int
    status: DispatcherStatus


class WorkSpan(Struct, frozen=True, array_like=True):
    """A lease that a worker returned: its jobs, and when each of them had come in."""

    process: str
    stage: str
    model: str
    started: float
    seconds: float
    jobs: tuple[int, ...]
    received: tuple[float, ...]


class Turn(Struct, frozen=True, array_like=True):
    """A process that passes jobs on was at work; with one job where `job` is not 0."""

    started: float
    seconds: float
    job: int = 0


class Traced(Struct, frozen=True, array_like=True, tag=27):
    """From the dispatcher: what was asked for with a TraceQuery; `complete` unless there was more than is kept."""

    query: int
    work: Raw  # list[WorkSpan], handed through as it is
    turns: Raw  # list[Turn]
    complete: bool


class Answered(Struct, frozen=True, array_like=True, tag=23):
    """From a postprocess worker: the answer of a job. `payload` counts the frame that holds it; 0: `small` does."""

    job: int
    body: bytes
    small: bytes
    payload: int
    times: tuple[float, ...]  # as in TIMES
    batch: int


class JobError(Struct, frozen=True, array_like=True, tag=24):
    """From a postprocess worker: this job gets an error instead of an answer."""

    job: int
    code: str
    text: str


class ModelOpened(Struct, frozen=True, array_like=True, tag=25):
    """From the supervisor: this model takes jobs now."""

    plan: ModelPlan
    provider: str


class ModelClosed(Struct, frozen=True, array_like=True, tag=26):
    """To the gateway: this name is served no more. To the supervisor: this key has no job left."""

    model: str


class OpenDoor(Struct, frozen=True, array_like=True, tag=29):
    """From the supervisor: everything is up; let clients in."""


class Ping(Struct, frozen=True, array_like=True, tag=32):
    """From the supervisor to the dispatcher and the gateway: say that you are not stuck."""


class CloseDoor(Struct, frozen=True, array_like=True, tag=30):
    """From the supervisor: refuse what is new, send what is owed, give up what is left at `until`, and stop.

    Said again with an earlier time, that one counts.
    """

    until: float


class Managed(Struct, frozen=True, array_like=True, tag=28):
    """From the supervisor: how a management request ended; an empty code is success."""

    query: int
    code: str
    text: str
    result: Raw  # a map, handed through as it is


OWN_PRIORITY = 101  # of the gateway's own jobs: above all that clients may ask for, and a full queue takes them
TIMES = ("queue", "decode", "batch_wait", "infer", "post_wait", "postprocess")


# --- to workers ------------------------------------------------------------------------------------------------------


class DecodeLease(Struct, frozen=True, array_like=True, tag=40):
    """Decode the payload in `ref` into `row` of the model's input ring."""

    lease: int
    model: str
    ref: SlotRef
    kind: PayloadKind
    tensors: tuple[Tensor, ...]
    options: bytes
    row: int


class InferLease(Struct, frozen=True, array_like=True, tag=41):
    """Run the model on these rows into output slot `slot`."""

    lease: int
    rows: tuple[int, ...]
    slot: int
    alone: bool  # one row, and nothing else is computed now or will be soon


class PostJob(Struct, frozen=True, array_like=True):
    """One job of a postprocess lease. `times` as in TIMES up to infer."""

    job: int
    index: int  # in the batch
    geometry: Geometry
    options: bytes
    format: AnswerFormat
    times: tuple[float, ...]


class PostLease(Struct, frozen=True, array_like=True, tag=42):
    """Answer these jobs from output slot `slot`, which holds a batch of `batch`."""

    lease: int
    model: str
    slot: int
    batch: int
    inferred: float
    shapes: dict[str, tuple[int, ...]]
    jobs: tuple[PostJob, ...]


class StopWorker(Struct, frozen=True, array_like=True, tag=43):
    """Stop now; what was sent has until `until` to leave."""

    until: float


class ModelAdded(Struct, frozen=True, array_like=True, tag=44):
    """Leases for this model may come."""

    plan: ModelPlan


class ModelRemoved(Struct, frozen=True, array_like=True, tag=45):
    """No lease of this model will come again: close its rings."""

    model: str


# --- to the supervisor -----------------------------------------------------------------------------------------------


class KillWorker(Struct, frozen=True, array_like=True, tag=60):
    """From the dispatcher: this worker has not come back in time."""

    worker: str
    why: str


class Drained(Struct, frozen=True, array_like=True, tag=61):
    """From the gateway: nothing is owed any more. It answers no Ping from now on, and waits for slow readers."""


class Left(Struct, frozen=True, array_like=True, tag=66):
    """From the gateway, as its last word: how many of the jobs it was owed when the stop began ended how.

    `unread` counts the clients that had not taken all their replies when the time was over.
    """

    answered: int
    refused: int  # requests that came later
    abandoned: int
    unread: int


class ModelServed(Struct, frozen=True, array_like=True, tag=67):
    """From the dispatcher: it takes jobs of this model (its key) now. Clients are told after that, and not before."""

    model: str


class LoadModel(Struct, frozen=True, array_like=True, tag=62):
    """From the gateway: a client wants a model file loaded. `options` is the map that the client gave."""

    query: int
    name: str
    path: str
    options: Raw


class ReloadModel(Struct, frozen=True, array_like=True, tag=79):
    """From the gateway: a client wants the file of a model looked at again."""

    query: int
    name: str


class UnloadModel(Struct, frozen=True, array_like=True, tag=68):
    """From the gateway: a client wants a model served no more."""

    query: int
    name: str


class StopServer(Struct, frozen=True, array_like=True, tag=69):
    """From the gateway: a client wants the server to stop."""

    query: int


class Started(Struct, frozen=True, array_like=True, tag=63):
    """From a child: it is up."""

    provider: str = ""  # an infer worker's: what runs its model
    confined: str = ""  # a decode worker's: what keeps it from everything but its work


class Listening(Struct, frozen=True, array_like=True, tag=70):
    """From the gateway, or from a door: it lets clients in at these addresses."""

    addresses: tuple[str, ...]


class Probed(Struct, frozen=True, array_like=True, tag=71):
    """From a probe: what a model file is; None where its content is what is served already."""

    spec: ModelSpec | None


class Alive(Struct, frozen=True, array_like=True, tag=65):
    """From a child: it took in a Ping."""


class StartFailed(Struct, frozen=True, array_like=True, tag=64):
    """From a child: it cannot start, and why."""

    text: str


Manage = LoadModel | ReloadModel | UnloadModel | StopServer
SupervisorToDispatcher = (
    PrepareModel
    | OpenModel
    | CloseModel
    | ModelFailed
    | ProcessReport
    | WorkerDown
    | Expect
    | Ping
    | Drain
    | StopWorkers
)
RareToDispatcher = (
    CancelJob
    | Overdue
    | GatewayUp
    | StatusQuery
    | TraceQuery
    | Manage
    | WorkerReady
    | DecodeFailed
    | SupervisorToDispatcher
)
ToDispatcher = Admit | Decoded | Inferred | Postprocessed | RareToDispatcher
ToGateway = (
    Refused
    | Released
    | AnswersInDoubt
    | StatusReply
    | Traced
    | Answered
    | JobError
    | ModelOpened
    | ModelClosed
    | Register
    | OpenDoor
    | CloseDoor
    | Managed
    | Ping
)
ToEveryWorker = Register | StopWorker
ToDecodeWorker = DecodeLease | ModelAdded | ModelRemoved | ToEveryWorker
ToInferWorker = InferLease | ToEveryWorker
ToPostprocessWorker = PostLease | ModelAdded | ModelRemoved | ToEveryWorker
ToSupervisor = KillWorker | Manage | ModelServed | ModelClosed
FromChild = Started | StartFailed | Alive | Listening | DoorActivity | Drained | Left | Probed
