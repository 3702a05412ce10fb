"""`serve`: the whole life of a server, from the sweep of dead runs to the last segment."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from setproctitle import setproctitle

from parallel_infer.config.schema import ServerConfig
from parallel_infer.config.sources import check_addresses, zoo_models
from parallel_infer.errors import ConfigError, ModelRejected
from parallel_infer.files.outputs import make_folder
from parallel_infer.observe.exporter import metrics_page
from parallel_infer.process.logs import start_logging
from parallel_infer.process.sandbox.confinement import PARTLY
from parallel_infer.process.standard_streams import silence_stdout
from parallel_infer.supervisor.child_specs import inside_door
from parallel_infer.supervisor.core import Core, State
from parallel_infer.supervisor.fit import fit, what_was_lowered
from parallel_infer.supervisor.free_addresses import check_free
from parallel_infer.supervisor.memory_report import check_memory, shared_memory
from parallel_infer.supervisor.plan import make_plan
from parallel_infer.supervisor.processes import ProcessSupervisor
from parallel_infer.supervisor.reload import Reload, needs_restart
from parallel_infer.supervisor.run import Run, new_run
from parallel_infer.supervisor.service_manager import ServiceManager
from parallel_infer.supervisor.signals import Signals
from parallel_infer.supervisor.tried import tried

_GRACE = 5.0  # seconds on top of a limit that is told to a service manager
log = logging.getLogger(__name__)


class Announce(Enum):
    """How readiness is said on stdout."""

    TEXT = "text"
    JSON = "json"


Reread = Callable[[], ServerConfig]


def serve(config: ServerConfig, announce: Announce = Announce.TEXT, reread: Reread | None = None) -> int:
    """Serve until SIGTERM, SIGINT or a client's stop. Returns the exit code: 0 after a clean stop, else 1.

    At SIGHUP the models become those of what `reread` returns; everything else stays as it was.
    """
    check_addresses(config)
    setproctitle("parallel-infer: supervisor")
    start_logging(config.log_format, config.log_level, "supervisor")
    with Signals() as signals, contextlib.closing(ServiceManager()) as manager:
        try:
            check_free(config)
            manager.starting("removing what dead runs left, looking into models", _patience(config))
            with new_run(config) as run, _metrics(config, run.folder):
                return _serve(_Told(config, announce, reread), signals, manager, run)
        except (ConfigError, ModelRejected) as error:
            log.error("%s", error)
            return 1
        except KeyboardInterrupt:  # while models were probed: nothing else had started
            return 0


def _metrics(config: ServerConfig, folder: Path) -> contextlib.AbstractContextManager[None]:
    if not config.metrics_port:
        return contextlib.nullcontext()
    return metrics_page(config.metrics_host, config.metrics_port, inside_door(folder))


class _Told(NamedTuple):
    """What `serve` was told."""

    config: ServerConfig
    announce: Announce
    reread: Reread | None


def _patience(config: ServerConfig) -> float:
    """Seconds that looking into models, or starting processes, may take."""
    return config.start_timeout_ms / 1000 + _GRACE


def _serve(told: _Told, signals: Signals, manager: ServiceManager, run: Run) -> int:
    config = told.config
    if config.profile is not None:
        make_folder(Path(config.profile), "profile")
    found = make_plan(config, run.mark.segment_name, run.store)

    def waiting(why: str) -> None:
        log.info("%s", why)
        manager.starting(why, config.trial_seconds + _GRACE)

    wanted, memory = tried(config, found, run.folder, waiting), shared_memory()
    config, plan = fit(told.config, wanted, memory)
    if config is not told.config:
        log.warning("%s", what_was_lowered(told.config, config, wanted, memory))
    check_memory(plan, memory)
    signals.calm()
    supervisor = ProcessSupervisor(config, plan, run, manager, signals.descriptor)
    core = supervisor.core
    try:
        manager.starting("starting processes and loading models", _patience(config))
        supervisor.start()
        supervisor.run_until(lambda: signals.ending or core.state != State.STARTING)
        if core.state == State.SERVING and not signals.ending:
            _say_ready(core, told.announce)
            manager.ready(_status(core))
            core.registry.log_all()
            for text in core.confinements:
                log.log(logging.WARNING if text.startswith(PARTLY) else logging.INFO, "decode workers are %s", text)
            _run(supervisor, signals, manager, told)
        manager.stopping("answering what was admitted", config.drain_timeout_ms / 1000 + _GRACE)
        _drain(supervisor, signals)
    finally:
        supervisor.stop()
    if core.state == State.FAILED:
        for model in plan.models:  # one of these may be the reason
            for warning in model.spec.warnings:
                log.warning("model %s: %s", model.name, warning)
        log.error("%s", core.failure)
        return 1
    return _say_how_it_ended(core)


def _run(supervisor: ProcessSupervisor, signals: Signals, manager: ServiceManager, told: _Told) -> None:
    core = supervisor.core
    while core.state == State.SERVING and not signals.ending:
        supervisor.run_until(lambda: signals.any or core.state != State.SERVING)
        if signals.take_reload() and core.state == State.SERVING and not signals.ending:
            manager.reloading()
            _reload(supervisor, signals, told)
            manager.ready(_status(core))


def _reload(supervisor: ProcessSupervisor, signals: Signals, told: _Told) -> None:
    """Read the configuration again, take over what can be, and say what became of it."""
    if told.reread is None:
        log.warning("SIGHUP: there is nothing to read again")
        return
    try:
        now_told = told.reread()
    except (ConfigError, OSError) as error:  # the latter where a relative path starts in a folder that is gone
        log.error("SIGHUP: the configuration was not taken over, and everything stays as it is: %s", error)
        return
    core = supervisor.core
    models = now_told.models or zoo_models()
    removed = core.registry.chains.remove_all_but(now_told.chain.keys() - models)
    reload = core.reload(models)
    supervisor.run_until(lambda: reload.done or signals.ending or core.state != State.SERVING)
    refused = dict(reload.refused)
    if reload.done:
        became, refused_chains = core.registry.chains.configure(now_told.chain)
        refused |= refused_chains
        log.info("SIGHUP: configuration taken over; %s", "; ".join(_became(reload, removed | became)))
    for why in refused.values():
        log.error("SIGHUP: not taken over, and served as before where it was: %s", why)
    if restart := needs_restart(told.config, now_told):
        log.warning("SIGHUP: these settings have changed and take a restart: %s", ", ".join(restart))


def _became(models: Reload, chains: Mapping[str, str]) -> Iterator[str]:
    """What became of each, in words."""
    yield str(models)
    yield from (f"chain {name}: {became}" for name, became in chains.items())


def _status(core: Core) -> str:
    """In one line, for the service manager."""
    return f"serving {', '.join(core.names) or 'no model'} at {' '.join(core.addresses)}"


def _drain(supervisor: ProcessSupervisor, signals: Signals) -> None:
    """Let admitted jobs finish; a second signal ends the waiting."""
    core = supervisor.core
    core.drain()
    signals.forget()
    while core.state == State.DRAINING:
        supervisor.run_until(lambda: signals.any or core.state != State.DRAINING)
        if signals.take_reload():
            log.warning("SIGHUP: the configuration is not read again, because the server is stopping")
        if signals.ending:
            core.hasten()
            signals.forget()


def _say_how_it_ended(core: Core) -> int:
    """One line about what was owed; the exit code."""
    if not core.addresses:
        return 0  # it never served
    ended = core.outcome
    if ended is None:
        log.error("stopped: the gateway ended without a word, so it is not known whether jobs were abandoned")
        return 1
    counts = f"{ended.answered} jobs answered, {ended.refused} refused, {ended.abandoned} abandoned"
    told = f"stopped: since the stop began, {counts}"
    if core.uncounted:
        log.warning("%s; the gateway died meanwhile, and what it owed then is in none of these", told)
        return 1
    if not ended.abandoned and not ended.unread:
        log.info("%s", told)
        return 0
    unread = f"; {ended.unread} clients had not taken all their replies" if ended.unread else ""
    log.warning("%s%s: the time was over (option drain_timeout_ms)", told, unread)
    return 1


def _say_ready(core: Core, announce: Announce) -> None:
    names = core.names
    if announce is Announce.JSON:
        line = json.dumps({"ready": True, "addresses": core.addresses, "models": names})
    else:
        line = f"ready: {' '.join(core.addresses)} ({', '.join(names)})"
    try:
        print(line, flush=True)
    except (OSError, ValueError) as error:  # a full disk, a pipe that nobody reads, a closed descriptor
        log.warning("the line that says ready cannot be written to standard output: %s", error)
        silence_stdout()
