"""Before anything starts: what will be served, by how many processes, and what shared memory each ring takes."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from parallel_infer.chains.plan import Served, broken_chains
from parallel_infer.chains.steps import read_chain
from parallel_infer.config.engine_schema import USUAL_BATCH
from parallel_infer.config.model_schema import Devices
from parallel_infer.config.schema import ModelConfig, ServerConfig
from parallel_infer.config.sources import zoo_models
from parallel_infer.errors import ConfigError
from parallel_infer.execution_providers import ON_GPU, ProviderName
from parallel_infer.ipc.messages import ModelPlan, SessionOptions
from parallel_infer.keys.server import KeyFolder
from parallel_infer.loading import load_by_name
from parallel_infer.machine.cores import default_decode_workers, has_gpu, split_cores, usable_cores, visible_gpus
from parallel_infer.model_files.store import ModelStore
from parallel_infer.model_spec import ModelSpec, TensorSpec
from parallel_infer.shm.ring import RingSpec, byte_ring
from parallel_infer.supervisor.probes import probe
from parallel_infer.trial.settings import Setting

_CHECK = "stages.pipeline:check_options"
_MEBI = 1 << 20
_SMALL_ROWS = 4 * _MEBI  # bytes of rows that a model of small inputs gets at least
_MOST_ROWS = 256
# Shares of the ingress memory by slot size: many small pictures, a few large frames.
_CLASSES = ((16 << 10, 0.03), (256 << 10, 0.25), (2 << 20, 0.30), (8 << 20, 0.30), (None, 0.12))
UNTRIED = "not tried (option trial); the default"
LATER = "not tried, since that would disturb models that are served: the next start does; until then the default"


@dataclass(frozen=True, slots=True)
class RingPlan:
    """One ring, for people."""

    name: str
    slots: int
    slot_size: int
    total: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is decided before the first process starts."""

    models: tuple[ModelPlan, ...]
    ingress: tuple[RingSpec, ...]
    decode_workers: int
    postprocess_workers: int
    segment_name: Callable[[str], str]  # what a segment of the run is called
    chosen: Mapping[str, Setting] = field(default_factory=dict)  # by a trial, by model
    trial: str = ""  # what came of it, for people

    @property
    def around(self) -> tuple[Callable[[str], str], int, int]:
        """What `plan_model` has to know of the run besides a model: names of segments, other workers."""
        return self.segment_name, self.decode_workers, self.postprocess_workers

    @property
    def rings(self) -> list[RingPlan]:
        """Every ring, for people."""
        rings = [_for_people(f"ingress {_size_text(ring.tensors[0].size)}", ring) for ring in self.ingress]
        for model in self.models:
            rings.append(_for_people(f"{model.name} rows", model.rows))
            rings.append(_for_people(f"{model.name} outputs", model.outputs))
        return rings

    @property
    def total(self) -> int:
        """Bytes of shared memory in all."""
        return sum(ring.total for ring in self.rings)


def make_plan(
    config: ServerConfig, segment_name: Callable[[str], str] = "plan-{}".format, store: ModelStore | None = None
) -> Plan:
    """Probe every model in a process of its own and size everything. `store` keeps copies of what was looked into.

    Raises ModelRejected for a model that cannot be served and ConfigError for a configuration that cannot be used.
    """
    if config.keys is not None:
        KeyFolder.open(config.keys)  # now, because a mistake in there is found sooner than a model is loaded
    models = config.models or zoo_models()
    decode_workers = config.decode_workers or default_decode_workers(usable_cores(), _on_gpu(config.provider))
    postprocess_workers = config.postprocess_workers or max(1, usable_cores() // 4)
    specs = tuple(probe(models, config, store).values())
    check_chains(config, {spec.name: spec for spec in specs})
    return _plan_all(config, specs, segment_name, decode_workers, postprocess_workers, {}, "")


def check_chains(config: ServerConfig, specs: Mapping[str, ModelSpec]) -> None:
    """Raises ConfigError for a chain that no picture could go through."""
    chains = {name: read_chain(name, text) for name, text in config.chain.items()}
    served = Served(specs, chains, config.max_objects, check_options)
    for error in broken_chains(served).values():
        raise ConfigError(str(error))


def check_options(spec: ModelSpec, options: bytes) -> None:
    """Raises BadInput for options that the model's task does not take; what reads them is loaded at the first."""
    load_by_name(_CHECK)(spec, options)


def planned_again(plan: Plan, config: ServerConfig) -> Plan:
    """What `make_plan` would say of the same models and processes under other limits; nothing is probed again.

    What a trial chose stays, but for larger batches, which take memory.
    """
    smaller = {
        name: replace(chosen, max_batch=min(chosen.max_batch, config.max_batch_size or USUAL_BATCH))
        for name, chosen in plan.chosen.items()
    }
    return with_chosen(plan, config, smaller, plan.trial)


def with_chosen(plan: Plan, config: ServerConfig, chosen: Mapping[str, Setting], trial: str) -> Plan:
    """The same models and processes with what a trial chose; `trial` says what came of it."""
    specs = tuple(model.spec for model in plan.models)
    return _plan_all(config, specs, *plan.around, chosen, trial)


def _plan_all(
    config: ServerConfig,
    specs: tuple[ModelSpec, ...],
    segment_name: Callable[[str], str],
    decode_workers: int,
    postprocess_workers: int,
    chosen: Mapping[str, Setting],
    trial: str,
) -> Plan:
    models = config.models or zoo_models()
    numbers = decode_workers, postprocess_workers
    plans = tuple(
        plan_model(config, models[spec.name], spec, segment_name, *numbers, chosen=chosen.get(spec.name), trial=trial)
        for spec in specs
    )
    return Plan(plans, ingress_rings(config, segment_name), *numbers, segment_name, chosen, trial)


def plan_model(
    config: ServerConfig,
    model: ModelConfig,
    spec: ModelSpec,
    segment_name: Callable[[str], str],
    decode_workers: int,
    postprocess_workers: int,
    version: int = 1,
    chosen: Setting | None = None,
    trial: str = "",
) -> ModelPlan:
    """Sizes of one model's rings, and how it runs; `chosen` by a trial counts where the user said nothing."""
    usual = chosen.max_batch if chosen is not None else USUAL_BATCH
    max_batch = spec.batch or model.max_batch_size or config.max_batch_size or usual
    max_batch = min(max_batch, spec.largest_batch or max_batch)
    provider = model.provider or config.provider
    devices = _devices(config.device if model.device is None else model.device)
    instances, threads, alone_threads = split_cores(
        usable_cores(),
        len(config.models or zoo_models()),
        len(devices) if _on_gpu(provider) else 0,
        model.instances or config.instances or (chosen.instances if chosen is not None else 0),
        model.threads or config.threads,
        config.alone_threads,
    )
    if chosen is not None and not (model.threads or config.threads):
        threads, alone_threads = chosen.threads, max(alone_threads, chosen.threads)
    if _on_gpu(provider) and instances < len(devices):
        raise ConfigError(
            f"the model {spec.name} has {instances} instances (option instances) for the {len(devices)} GPUs {devices} "
            "(option device); each GPU needs one"
        )
    rows = max_batch * (2 * instances + 2) + 2 * decode_workers
    rows = max(rows, min(_MOST_ROWS, _SMALL_ROWS // max(1, spec.row_size)))
    outputs = 2 * instances + 2 * postprocess_workers + 1
    unknown = int((model.max_output_mb or config.max_output_mb) * _MEBI)
    delay = config.max_queue_delay_ms if model.max_queue_delay_ms is None else model.max_queue_delay_ms
    # A model's name may hold anything; a segment's may not, and must not be long.
    label = f"{re.sub('[^A-Za-z0-9]', '_', spec.name)[:32]}-{zlib.crc32(spec.name.encode()):08x}-{version}"
    return ModelPlan(
        name=spec.name,
        version=version,
        spec=spec,
        rows=RingSpec(segment_name(f"{label}-rows"), rows, spec.inputs),
        outputs=RingSpec(
            segment_name(f"{label}-outputs"),
            outputs,
            tuple(_batched(tensor, max_batch, unknown) for tensor in spec.outputs),
        ),
        max_batch=max_batch,
        preferred_batch=model.preferred_batch_size or 0,
        fixed_batch=spec.batch or 0,
        max_queue_delay=delay / 1000,
        queue_size=model.queue_size or config.queue_size,
        instances=instances,
        weight=model.weight,
        decode=model.decode or config.decode,
        session=SessionOptions(
            provider=provider,
            precision=model.precision or config.precision,
            threads=threads,
            alone_threads=alone_threads,
            inter_threads=config.inter_threads,
            streams=config.streams,
            optimization=config.optimization,
            cpu_arena=config.cpu_arena,
            memory_pattern=config.memory_pattern,
            device=devices[0],
            gpu_mem_limit_mb=config.gpu_mem_limit_mb,
            arena_strategy=config.arena_strategy,
            page_locked=config.page_locked,
            cuda_graphs=config.cuda_graphs,
            cuda_overlap=config.cuda_overlap,
            cache=config.cache,
            profile=config.profile,
        ),
        devices=devices,
        trial=trial,
    )


def beside(config: ServerConfig, before: ModelPlan | None, changes: tuple[str, ...]) -> tuple[Setting | None, str]:
    """How a model runs that is loaded while the server runs, if not by default, and why. Nothing is tried.

    `before` is how a version of it is served that this one takes the place of, `changes` the options that differ.
    """
    if not config.trial:
        return None, UNTRIED
    if before is None or changes:
        return None, LATER
    return Setting(before.instances, before.session.threads, before.max_batch), before.trial


def gpus_of(config: ServerConfig, model: ModelConfig) -> int:
    """How many GPUs a model runs on; 0: on the processor."""
    return len(_devices(config.device if model.device is None else model.device)) * _on_gpu(
        model.provider or config.provider
    )


def _devices(wanted: Devices) -> tuple[int, ...]:
    """Numbers of GPUs. Raises ConfigError for a list that names one twice."""
    if wanted == "auto":
        return tuple(range(visible_gpus())) or (0,)
    numbers = (wanted,) if isinstance(wanted, int) else tuple(wanted)
    if len(set(numbers)) < len(numbers):
        raise ConfigError(f"device is {list(numbers)}; expected numbers of GPUs, each once, or auto")
    return numbers


def _on_gpu(provider: ProviderName) -> bool:
    return provider in ON_GPU or (provider == "auto" and has_gpu())


def ingress_rings(config: ServerConfig, segment_name: Callable[[str], str]) -> tuple[RingSpec, ...]:
    """The gateway's rings: size classes up to the largest payload, within `shared_memory_mb`."""
    budget = config.shared_memory_mb * _MEBI
    largest = math.ceil(config.max_payload_mb * _MEBI)
    if largest > budget:
        raise ConfigError(
            f"max_payload_mb ({config.max_payload_mb:g}) is larger than shared_memory_mb ({config.shared_memory_mb})"
        )
    classes = [(size, share) for size, share in _CLASSES if size is not None and size < largest]
    shares = sum(share for _, share in classes)
    last = max(1, int(budget * (1 - shares)) // largest)
    budget -= last * largest
    rings = [
        byte_ring(segment_name(f"in-{size >> 10}k"), slots, size)
        for size, share in classes
        if (slots := int(budget * share / shares) // size) > 0
    ]
    return (*rings, byte_ring(segment_name("in-max"), last, largest))


def _batched(tensor: TensorSpec, batch: int, unknown: int) -> TensorSpec:
    """An output of a whole batch; one whose shape only a run tells becomes plain bytes."""
    if -1 in tensor.shape:
        return TensorSpec(tensor.name, "uint8", (unknown * batch,))
    return TensorSpec(tensor.name, tensor.dtype, (batch, *tensor.shape))


def _for_people(name: str, ring: RingSpec) -> RingPlan:
    return RingPlan(name, ring.slots, sum(tensor.size for tensor in ring.tensors), ring.size)


def _size_text(size: int) -> str:
    return f"{size >> 20} MB" if size >= _MEBI else f"{size >> 10} KB"
