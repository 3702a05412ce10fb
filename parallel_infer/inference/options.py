"""How a model is to be loaded: provider, precision, threads, memory. Plain data; `providers` acts on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import get_args

from parallel_infer.errors import ConfigError
from parallel_infer.execution_providers import ProviderName
from parallel_infer.machine.cores import usable_cores
from parallel_infer.model_spec import PrecisionName


class ArenaStrategy(Enum):
    """How the memory arena of a GPU grows; the values are ONNX Runtime's."""

    NEXT_POWER_OF_TWO = "kNextPowerOfTwo"
    SAME_AS_REQUESTED = "kSameAsRequested"


class GraphOptimization(Enum):
    """How far ONNX Runtime rewrites the graph at load."""

    NONE = "disabled"
    BASIC = "basic"
    EXTENDED = "extended"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """Everything a `Session` is told. `ConfigError` where a value makes no sense on any machine.

    `threads` compute one operator together, 0 stands for every core this process may use; `inter_threads` is the
    number of operators of one run that go side by side. No session spins: its idle threads sleep. `streams` is the
    number of runs that OpenVINO computes at once. `batches` says that rows of a batch are independent, and which
    sizes are worth a graph of their own to OpenVINO, which computes other sizes as their sum; `rows` are the shapes
    of one row by input, for graphs that leave more open than the batch size. `gpu_mem_limit` is in bytes and bounds
    the arena of one session. `page_locked` lets a GPU read and write the memory of bindings by itself, and
    `cuda_graphs` has it repeat a recorded run of each batch size instead of being told every operator, where the whole
    model runs there (CUDA). With both, `cuda_overlap` lets a run be copied while another one computes. `cache` is a
    directory for compiled models (OpenVINO) and engines (TensorRT); it is made where it is missing. `profile` is the
    prefix of a profile that ONNX Runtime writes when the session closes.
    """

    provider: ProviderName = "auto"
    precision: PrecisionName = "auto"
    device: int = 0
    gpu_mem_limit: int | None = None
    arena_strategy: ArenaStrategy = ArenaStrategy.NEXT_POWER_OF_TWO
    page_locked: bool = True
    cuda_graphs: bool = True
    cuda_overlap: bool = True
    cache: Path | None = None
    threads: int = 0
    inter_threads: int = 1
    streams: int = 1
    batches: tuple[int, ...] = ()
    rows: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    optimization: GraphOptimization = GraphOptimization.ALL
    cpu_arena: bool = True
    memory_pattern: bool = True
    profile: str | None = None

    def __post_init__(self) -> None:
        _one_of("provider", self.provider, get_args(ProviderName))
        _one_of("precision", self.precision, get_args(PrecisionName))
        for name, least in (("device", 0), ("threads", 0), ("inter_threads", 1), ("streams", 1)):
            _at_least(name, getattr(self, name), least)
        if self.gpu_mem_limit is not None:
            _at_least("gpu_mem_limit", self.gpu_mem_limit, 1)

    @property
    def thread_count(self) -> int:
        """`threads`, with 0 replaced by the number of cores this process may use."""
        return self.threads or usable_cores()


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} = {value!r} is unknown; it is one of {', '.join(allowed)}")


def _at_least(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} = {value!r} is out of range; it is a whole number of at least {least}")
