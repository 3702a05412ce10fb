"""The status and traces: who asks for them, and what each process has to say."""

from __future__ import annotations

from msgspec import Raw, Struct


class StatusQuery(Struct, frozen=True, array_like=True, tag=9):
    """From the gateway or the supervisor: tell how things are, under this number."""

    query: int


class StatusReply(Struct, frozen=True, array_like=True, tag=22):
    """From the dispatcher: the answer to a StatusQuery."""

    query: int
    status: DispatcherStatus


class DispatcherStatus(Struct, frozen=True):
    """The dispatcher's part of the status, and the supervisor's."""

    jobs: int
    draining: bool
    models: dict[str, ModelStatus]
    workers: dict[str, WorkerStatus]
    processes: dict[str, ProcessState]
    refused: dict[str, int]
    dispatcher: ProcessTime
    shared_pictures: int  # that several jobs are about, of which one is in flight or may come
    doors: dict[str, DoorState] = {}


class ModelReport(Struct, frozen=True, kw_only=True):
    """A version of a model as the supervisor sees it, for the status."""

    name: str
    version: int
    state: str
    digest: str
    provider: str
    memory: int  # bytes of its rings
    trial: str = ""  # how instances, threads and largest batch came about, for people


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
    decoded: int  # pictures of fans and chains
    reused: int  # jobs of those whose picture was decoded already
    batch_sizes: dict[str, int]
    batch_target: int
    batch_seconds: float
    leaked: Leaked


class SlotCount(Struct, frozen=True):
    """The slots of a ring."""

    slots: int
    free: int


class Leaked(Struct, frozen=True):
    """Slots that are taken though no job needs them: always 0."""

    rows: int
    outputs: int


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


class ProcessReport(Struct, frozen=True, array_like=True, tag=18):
    """From the supervisor: processes by name, models by key and doors by name as it sees them, for the status."""

    processes: dict[str, ProcessState]
    models: dict[str, ModelReport]
    doors: dict[str, DoorState] = {}


class TraceQuery(Struct, frozen=True, array_like=True, tag=31):
    """From the gateway: note what the workers do for so many seconds, then tell, under this number."""

    query: int
    seconds: float


class Traced(Struct, frozen=True, array_like=True, tag=27):
    """From the dispatcher: what was asked for with a TraceQuery; `complete` unless there was more than is kept."""

    query: int
    work: Raw  # list[WorkSpan], handed through as it is
    turns: Raw  # list[Turn]
    complete: bool


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
