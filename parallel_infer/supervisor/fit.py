"""Less shared memory than a configuration asks for: which limits are lowered, and by how much.

First batches get smaller, which costs a processor nearly nothing, and the memory of payloads shrinks to what they
leave; then a model has one instance; the size of the largest payload, which decides about what is taken at all, is the
last to be touched. Of the configurations that fit, the one that is lowered least in this order is taken. Pure.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator

import msgspec

from parallel_infer.config.engine_schema import USUAL_BATCH
from parallel_infer.config.schema import ServerConfig
from parallel_infer.supervisor.memory_report import SharedMemory, how_to_give, size_text
from parallel_infer.supervisor.plan import Plan, planned_again

_MEBI = 1 << 20
_LEAST_PAYLOADS = 8  # MB; the least that shared_memory_mb takes
LOWERED = ("max_batch_size", "shared_memory_mb", "instances", "max_payload_mb")
_UNSAID = "what the machine takes"
log = logging.getLogger(__name__)


def fit(config: ServerConfig, plan: Plan, memory: SharedMemory) -> tuple[ServerConfig, Plan]:
    """Configuration and plan as they are where they fit or need not be made to, else ones that do.

    Where nothing fits they are unchanged, and `check_memory` refuses them.
    """
    if not config.fit_shared_memory or plan.total <= memory.free:
        return config, plan
    for smaller in _smaller(config, plan, memory.free):
        fitting = planned_again(plan, smaller)
        if fitting.total <= memory.free:
            return smaller, fitting
    return config, plan


def what_was_lowered(config: ServerConfig, smaller: ServerConfig, plan: Plan, memory: SharedMemory) -> str:
    """One sentence for whoever started the server; `plan` is that of `config`, which did not fit."""
    unsaid = {"max_batch_size": USUAL_BATCH}
    changes = [
        f"{name}={getattr(smaller, name):g} instead of {getattr(config, name) or unsaid.get(name, _UNSAID)}"
        for name in LOWERED
        if getattr(smaller, name) != getattr(config, name)
    ]
    return (
        f"{size_text(plan.total)} of shared memory are asked for and {size_text(memory.free)} are free; because of "
        f"fit_shared_memory the server goes on with {', '.join(changes)}. {how_to_give(plan.total, memory)}"
    )


def _smaller(config: ServerConfig, plan: Plan, free: int) -> Iterator[ServerConfig]:
    """Configurations that may fit, the one that is lowered least first."""
    batches = list(_batch_sizes(config))
    yield from _with_payloads(config, plan, free)
    for batch in batches[1:]:
        yield from _with_payloads(msgspec.structs.replace(config, max_batch_size=batch), plan, free)
    single = msgspec.structs.replace(config, max_batch_size=batches[-1], instances=1)
    yield from _with_payloads(single, plan, free)
    for payload in _payload_sizes(config):
        yield from _with_payloads(msgspec.structs.replace(single, max_payload_mb=payload), plan, free)


def _batch_sizes(config: ServerConfig) -> Iterator[int]:
    """Halves, down to what no model of the configuration forbids."""
    preferred = [model.preferred_batch_size or 1 for model in config.models.values() if model.max_batch_size is None]
    least, size = max(preferred, default=1), config.max_batch_size or USUAL_BATCH
    while size > least:
        yield size
        size = max(size // 2, least)
    yield least


def _payload_sizes(config: ServerConfig) -> Iterator[float]:
    size = config.max_payload_mb / 2
    while size >= 1:
        yield size
        size /= 2


def _with_payloads(config: ServerConfig, plan: Plan, free: int) -> Iterator[ServerConfig]:
    """The configuration with as much memory for payloads as its models leave, where that is enough for one."""
    models = sum(model.rows.size + model.outputs.size for model in planned_again(plan, config).models)
    room = min(config.shared_memory_mb, (free - models) // _MEBI - 1)  # one for what rings have besides their slots
    if room >= max(_LEAST_PAYLOADS, math.ceil(config.max_payload_mb)):
        yield msgspec.structs.replace(config, shared_memory_mb=room)
