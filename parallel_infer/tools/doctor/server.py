"""Whether a server of a given configuration could start here: models, shared memory, addresses, what is left over."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

from parallel_infer.config.schema import ServerConfig
from parallel_infer.config.sources import check_addresses
from parallel_infer.errors import ConfigError, ModelRejected
from parallel_infer.machine.cgroups import limits
from parallel_infer.supervisor.memory_report import (
    FOLDER,
    Plan,
    SharedMemory,
    check_memory,
    how_to_give,
    shared_memory,
    size_text,
)
from parallel_infer.tools.doctor.findings import Finding

_MEBI = 1 << 20


def server_findings(config: ServerConfig) -> Iterator[Finding]:
    """Everything about this configuration on this machine."""
    yield from address_findings(config)
    yield from _model_findings(config)
    yield from left_over_findings()


def address_findings(config: ServerConfig) -> Iterator[Finding]:
    try:
        check_addresses(config)
    except ConfigError as error:
        yield Finding.problem("addresses", str(error), "choose one of these")
    for address in config.bind:
        obstacle = _bind_error(address)
        if obstacle is None:
            yield Finding.ok("addresses", f"{address} is free")
        elif obstacle.errno == errno.EADDRINUSE:
            yield Finding.warning("addresses", f"somebody listens on {address}", "stop them, or give another --bind")
        else:
            yield Finding.problem("addresses", f"{address}: {obstacle.strerror}", "give another --bind")


def memory_findings(
    config: ServerConfig, plan: Plan, memory: SharedMemory, limit: int | None = None
) -> Iterator[Finding]:
    """Whether the rings fit into shared memory and the container's `limit`, and with them what clients may borrow."""
    text = f"{size_text(plan.total)} needed, {size_text(memory.free)} free of {size_text(memory.size)} in {FOLDER}"
    lent = config.lent_memory_mb * _MEBI
    try:
        check_memory(plan, memory)
    except ConfigError as error:
        yield Finding.problem("shared memory", text, str(error))
        return
    if limit is not None and plan.total >= limit:
        remedy = "shared memory counts as memory of the container: give it more (docker run --memory)"
        yield Finding.problem("shared memory", f"{text}, but the container may use {size_text(limit)} in all", remedy)
    elif plan.total + lent > memory.free:
        remedy = f"{how_to_give(plan.total + lent, memory)} Or lower lent_memory_mb"
        yield Finding.warning("shared memory", f"{text}; not all of lent_memory_mb can be lent besides", remedy)
    else:
        yield Finding.ok("shared memory", text)


def left_over_findings() -> Iterator[Finding]:
    """Segments of servers that died without cleaning up."""
    from parallel_infer.shm.segment import PREFIX, dead_runs  # first used here: imports numpy

    for run in dead_runs():
        names = [FOLDER / f"{PREFIX}{run}", *FOLDER.glob(f"{PREFIX}{run}-*")]
        total = sum(path.stat().st_blocks * 512 for path in names if path.exists())
        yield Finding.warning(
            "left over",
            f"a dead run holds {size_text(total)} of shared memory ({PREFIX}{run})",
            "the next `parallel-infer serve` removes it",
        )


def _model_findings(config: ServerConfig) -> Iterator[Finding]:
    from parallel_infer.supervisor.fit import fit, what_was_lowered  # first used here: these import numpy
    from parallel_infer.supervisor.plan import make_plan

    try:
        plan = make_plan(config)
    except (ConfigError, ModelRejected) as error:
        yield Finding.problem("models", str(error), "`parallel-infer inspect FILE` tells more about a model")
        return
    for model in plan.models:
        text = f"{model.name}: {model.spec.task} ({model.spec.family})"
        yield Finding.ok("models", text)
        for warning in model.spec.warnings:
            yield Finding.warning("models", f"{model.name}: {warning}", "docs/models.md tells what can be set")
    try:
        memory = shared_memory()
    except ConfigError as error:
        yield Finding.problem("shared memory", str(error), f"mount a tmpfs at {FOLDER}")
        return
    smaller, fitting = fit(config, plan, memory)
    if smaller is not config:
        yield Finding.warning("shared memory", what_was_lowered(config, smaller, plan, memory), "give it more")
    yield from memory_findings(smaller, fitting, memory, limits().memory)


def _bind_error(address: str) -> OSError | None:
    """What stands in the way of listening there; ipc sockets and free ports have nothing to collide with."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    if not address.startswith("tcp://") or port in ("*", "0"):
        return None
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("" if host == "*" else host, int(port)))
        except OSError as error:
            return error
    return None
