"""`serve`: the whole life of a server, from the sweep of dead runs to the last segment."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable
from enum import Enum
from pathlib import Path

from setproctitle import setproctitle

from parallel_infer.config import ServerConfig
from parallel_infer.config_sources import check_addresses, zoo_models
from parallel_infer.errors import ConfigError, ModelRejected
from parallel_infer.logs import start_logging
from parallel_infer.memory_report import check_memory, shared_memory
from parallel_infer.plan import make_plan
from parallel_infer.rundir import make_run_directory, remove_directory, sweep_directories
from parallel_infer.segment import RunMark, sweep
from parallel_infer.standard_streams import silence_stdout
from parallel_infer.supervisor.crew import inside_door
from parallel_infer.supervisor.exporter import metrics_page
from parallel_infer.supervisor.house import House, State
from parallel_infer.supervisor.signals import Signals

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
    with Signals() as signals:
        return _with_run(config, announce, reread, signals)


def _with_run(config: ServerConfig, announce: Announce, reread: Reread | None, signals: Signals) -> int:
    """Everything between the sweep of dead runs and the last segment of this one."""
    for run in sweep():
        log.info("removed what a dead run left in shared memory (%s)", run)
    sweep_directories()
    mark = RunMark()
    folder: Path | None = None
    try:
        folder = make_run_directory(mark.run)
        with _metrics(config, folder):
            return _serve(config, announce, reread, signals, mark, folder)
    except (ConfigError, ModelRejected) as error:
        log.error("%s", error)
        return 1
    except KeyboardInterrupt:  # while models were probed: nothing else had started
        return 0
    finally:
        if folder is not None:
            remove_directory(folder)
        mark.remove()


def _metrics(config: ServerConfig, folder: Path) -> contextlib.AbstractContextManager[None]:
    if not config.metrics_port:
        return contextlib.nullcontext()
    return metrics_page(config.metrics_host, config.metrics_port, inside_door(folder))


def _serve(
    config: ServerConfig, announce: Announce, reread: Reread | None, signals: Signals, mark: RunMark, folder: Path
) -> int:
    plan = make_plan(config, mark.segment_name)
    check_memory(plan, shared_memory())
    for model in plan.models:
        for warning in model.spec.warnings:
            log.warning("model %s: %s", model.name, warning)
    signals.calm()
    house = House(config, plan, mark, folder, signals.descriptor)
    try:
        house.start()
        house.run_until(lambda: signals.ending or house.state != State.STARTING)
        if house.state == State.SERVING and not signals.ending:
            _say_ready(house, announce)
            _run(house, signals, reread)
        _drain(house, signals)
    finally:
        house.stop()
    if house.state == State.FAILED:
        log.error("%s", house.failure)
        return 1
    return _say_how_it_ended(house)


def _run(house: House, signals: Signals, reread: Reread | None) -> None:
    while house.state == State.SERVING and not signals.ending:
        house.run_until(lambda: signals.any or house.state != State.SERVING)
        if signals.take_reload() and house.state == State.SERVING and not signals.ending:
            _reload(house, reread)


def _reload(house: House, reread: Reread | None) -> None:
    if reread is None:
        log.warning("nothing to read again: the server was started without a configuration file")
        return
    try:
        house.reload(reread().models or zoo_models())
    except ConfigError as error:
        log.error("the configuration was not taken over: %s", error)


def _drain(house: House, signals: Signals) -> None:
    """Let admitted jobs finish; a second signal ends the waiting."""
    house.drain()
    signals.forget()
    while house.state == State.DRAINING:
        house.run_until(lambda: signals.any or house.state != State.DRAINING)
        if signals.take_reload():
            log.warning("SIGHUP: the configuration is not read again, because the server is stopping")
        if signals.ending:
            house.hasten()
            signals.forget()


def _say_how_it_ended(house: House) -> int:
    """One line about what was owed; the exit code."""
    if not house.addresses:
        return 0  # it never served
    ended = house.outcome
    if ended is None:
        log.error("stopped: the gateway ended without a word, so it is not known whether jobs were abandoned")
        return 1
    told = f"stopped: {ended.answered} jobs answered, {ended.refused} refused, {ended.abandoned} abandoned"
    if not ended.abandoned and not ended.unread:
        log.info("%s", told)
        return 0
    unread = f"; {ended.unread} clients had not taken all their replies" if ended.unread else ""
    log.warning("%s%s: the time was over (option drain_timeout_ms)", told, unread)
    return 1


def _say_ready(house: House, announce: Announce) -> None:
    names = house.names
    if announce is Announce.JSON:
        line = json.dumps({"ready": True, "addresses": house.addresses, "models": names})
    else:
        line = f"ready: {' '.join(house.addresses)} ({', '.join(names)})"
    try:
        print(line, flush=True)
    except (OSError, ValueError) as error:  # a full disk, a pipe that nobody reads, a closed descriptor
        log.warning("the line that says ready cannot be written to standard output: %s", error)
        silence_stdout()
