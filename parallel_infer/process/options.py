"""What each kind of child process is told at its start. One frozen struct a kind; sent as MessagePack."""

from __future__ import annotations

from msgspec import Raw, Struct

from parallel_infer.ipc.messages import ModelPlan
from parallel_infer.limits import PREVIEW_SIDE
from parallel_infer.model_files.store import CopyOrder
from parallel_infer.shm.ring import RingSpec


class ChildOptions(Struct, frozen=True, kw_only=True):
    """What every child is told."""

    log_format: str
    log_level: str
    epoch: int = 1  # counts the processes that have filled this child's slot


class DispatcherOptions(ChildOptions, frozen=True, kw_only=True):
    """The dispatcher's; `policy` names the function that makes a model's batching policy, as "module:function"."""

    address: str
    policy: str
    stage_limit: float  # seconds
    cores: int  # that the processes of the server may use
    kept: int = 0  # bytes of decoded pictures that each decode worker keeps


class WorkerOptions(ChildOptions, frozen=True, kw_only=True):
    """What every worker is told: the dispatcher's address, and the class of its stage as "module:class"."""

    dispatcher: str
    stage: str


class DecodeOptions(WorkerOptions, frozen=True, kw_only=True):
    """A decode worker's."""

    max_pixels: int
    formats: tuple[str, ...]
    confined: bool
    kept: int = 0  # bytes of decoded pictures that further jobs are about


class InferOptions(WorkerOptions, frozen=True, kw_only=True):
    """An infer worker's."""

    plan: ModelPlan


class PostprocessOptions(WorkerOptions, frozen=True, kw_only=True):
    """A postprocess worker's; `answers` is the address at which the gateway takes answers."""

    answers: str


class GatewayOptions(ChildOptions, frozen=True, kw_only=True):
    """The gateway's. Sizes are in bytes."""

    dispatcher: str
    answers: str
    bind: tuple[str, ...]
    inside: str  # the address for this user alone where metrics are asked for; empty: none
    ingress: tuple[RingSpec, ...]
    segments: str  # prefix of the names of lent rings
    lent_memory: int
    response_cache: int
    max_payload: int
    max_message: int
    timeout: float  # seconds, of a request that names none
    keys: str | None
    max_clients: int
    max_objects: int = 64
    max_crops: int = 256
    page_picture: int = PREVIEW_SIDE  # pixels of the longer side


class ProbeOptions(ChildOptions, frozen=True, kw_only=True):
    """Those of a process that finds out what a model file is."""

    name: str
    path: str
    overrides: Raw  # a map, as `stages.recognise.describe` takes it
    uint8_rows: bool
    order: CopyOrder
    known: str  # the digest of what is served already; empty: none
    start_timeout: float  # seconds
