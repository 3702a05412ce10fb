"""What the page is told of a server, once a second: structs that go to it as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """The whole server."""

    answered: int  # jobs, since the gateway counts
    failed: int
    dropped: int  # replaced by a newer frame, or cancelled
    fps: float  # answers per second
    p50: float | None  # ms from admission to the answer; None: nothing was answered yet
    p99: float | None
    queue: int  # jobs that wait for decoding or inference, now
    pending: int  # jobs without a reply, now
    workers: int  # worker processes that are up
    all_workers: int


class ModelNow(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a model."""

    key: str
    name: str
    version: int
    state: str
    unavailable: str  # why; "" where it is not
    instances: int
    fps: float
    errors_per_second: float
    answered: int
    errors: Mapping[str, int]  # by code, since the gateway counts
    p50: float | None  # ms
    p99: float | None
    times: Mapping[str, float]  # part of a job's time -> its mean in ms
    batch: float  # jobs inferred together, the mean
    batch_sizes: Mapping[str, int]  # size -> runs, since the model is served
    queued: int
    decoding: int
    ready: int
    rows: tuple[int, int]  # free, all
    outputs: tuple[int, int]
    memory: int  # bytes of its rings
    limit: str  # the stage that holds it up; ""


class StageNow(msgspec.Struct, frozen=True, kw_only=True):
    """Workers of one stage, or a process that passes jobs on."""

    name: str
    model: str
    workers: int
    utilisation: float  # 0 to 1
    per_second: float | None


class ProcessNow(msgspec.Struct, frozen=True, kw_only=True):
    """One process."""

    name: str
    stage: str  # "": no worker
    model: str
    state: str
    restarts: int
    utilisation: float | None


class IngressNow(msgspec.Struct, frozen=True, kw_only=True):
    """Payload slots of one size."""

    slot_size: int
    slots: int
    free: int


class ClientsWord(msgspec.Struct, frozen=True, kw_only=True):
    """What the client of a live source tells of it."""

    state: str
    message: str
    dropped: int  # frames, by itself and by the server
    expired: int
    failed: int
    restarts: int  # of the capture
    counts: Sequence[tuple[str, str, str, int]]  # what, at which line or zone, of which class, how many
    age: float  # seconds since it told so


class SourceNow(msgspec.Struct, frozen=True, kw_only=True):
    """One live source."""

    name: str
    fps: float
    answered: int
    dropped: int
    failed: int
    age: float | None  # seconds since the newest answered frame came in
    client: ClientsWord | None  # None: its client tells nothing


class DoorNow(msgspec.Struct, frozen=True, kw_only=True):
    """One door for clients of another protocol; counts are those since its process started."""

    name: str
    addresses: tuple[str, ...]
    state: str
    requests: int
    refused: Mapping[str, int]  # by code
    in_flight: int


class MemberNow(msgspec.Struct, frozen=True, kw_only=True):
    """One server behind a router."""

    name: str
    address: str
    state: str
    problem: str  # why it gets no jobs; ""
    models: int
    under_way: int  # jobs
    answered: int


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a server, and what it did in the last seconds."""

    uptime: float  # seconds
    draining: bool
    clients: int
    limit: str  # the stage that holds up the others; ""
    lent: int  # bytes lent to clients
    unread: int
    cut: int
    totals: Totals
    models: list[ModelNow]
    stages: list[StageNow]
    processes: list[ProcessNow]
    doors: list[DoorNow]
    ingress: list[IngressNow]
    sources: list[SourceNow]
    members: list[MemberNow]  # [] for a server, which is no router
