"""A model's life: it is probed, prepared, served and closed; `ModelPlan` is what every process knows of it."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from parallel_infer.execution_providers import ProviderName
from parallel_infer.model_spec import ModelSpec, PrecisionName
from parallel_infer.shm.ring import RingSpec


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
    cuda_overlap: bool = True
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
    devices: tuple[int, ...] = (0,)  # GPUs that instances are spread over
    trial: str = ""  # how instances, threads and largest batch came about, for people

    def session_of(self, instance: int) -> SessionOptions:
        """How an instance is run, counted from 0: on its own device."""
        return replace(self.session, device=self.devices[instance % len(self.devices)])

    @property
    def key(self) -> str:
        """Tells versions of one name apart, between the processes of a server."""
        return self.name if self.version == 1 else f"{self.name}#{self.version}"


class Probed(Struct, frozen=True, array_like=True, tag=71):
    """From a probe: what a model file is; None where its content is what is served already."""

    spec: ModelSpec | None


class PrepareModel(Struct, frozen=True, array_like=True, tag=16):
    """From the supervisor: a model is being loaded. Its workers announce themselves; jobs come after OpenModel."""

    plan: ModelPlan


class OpenModel(Struct, frozen=True, array_like=True, tag=10):
    """From the supervisor: serve this model now, instead of an older one of the same name."""

    plan: ModelPlan


class ModelServed(Struct, frozen=True, array_like=True, tag=67):
    """From the dispatcher: it takes jobs of this model (its key) now. Clients are told after that, and not before."""

    model: str


class ModelOpened(Struct, frozen=True, array_like=True, tag=25):
    """From the supervisor: this model takes jobs now."""

    plan: ModelPlan
    provider: str


class ChainsServed(Struct, frozen=True, array_like=True, tag=74):
    """From the supervisor: these are the chains now, by name, as `parallel_infer.chains.steps` reads them."""

    chains: dict[str, str]


class ModelAdded(Struct, frozen=True, array_like=True, tag=44):
    """Leases for this model may come."""

    plan: ModelPlan


class CloseModel(Struct, frozen=True, array_like=True, tag=11):
    """From the supervisor: take no more jobs of this model (its key); ModelClosed follows its last answer."""

    model: str


class ModelClosed(Struct, frozen=True, array_like=True, tag=26):
    """To the gateway: this name is served no more. To the supervisor: this key has no job left."""

    model: str


class ModelRemoved(Struct, frozen=True, array_like=True, tag=45):
    """No lease of this model will come again: close its rings."""

    model: str


class ModelFailed(Struct, frozen=True, array_like=True, tag=17):
    """From the supervisor: the workers of this model (its key) keep dying."""

    model: str
    text: str
