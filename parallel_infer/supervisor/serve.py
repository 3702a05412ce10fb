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
from parallel_infer.confinement import PARTLY
from parallel_infer.errors import ConfigError, ModelRejected
from parallel_infer.logs import start_logging
from parallel_infer.memory_report import check_memory, shared_memory
from parallel_infer.outputs import make_folder
from parallel_infer.plan import make_plan
from parallel_infer.standard_streams import silence_stdout
from parallel_infer.supervisor.crew import inside_door
from parallel_infer.supervisor.exporter import metrics_page
from parallel_infer.supervisor.house import House, State
from parallel_infer.supervisor.reload import needs_restart
from parallel_infer.supervisor.run import Run, new_run
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
        try:
            with new_run(config) as run, _metrics(config, run.folder):
                return _serve(config, announce, reread, signals, run)
        except (ConfigError, ModelRejected) as error:
            log.error("%s", error)
            return 1
        except KeyboardInterrupt:  # while models were probed: nothing else had started
            return 0


def _metrics(config: ServerConfig, folder: Path) -> contextlib.AbstractContextManager[None]:
    if not config.metrics_port:
        return contextlib.nullcontext()
    return metrics_page(config.metrics_host, config.metrics_port, inside_door(folder))


def _serve(config: ServerConfig, announce: Announce, reread: Reread | None, signals: Signals, run: Run) -> int:
    if config.profile is not None:
        make_folder(Path(config.profile), "profile")
    plan = make_plan(config, run.mark.segment_name, run.store)
    check_memory(plan, shared_memory())
    signals.calm()
    house = House(config, plan, run, signals.descriptor)
    try:
        house.start()
        house.run_until(lambda: signals.ending or house.state != State.STARTING)
        if house.state == State.SERVING and not signals.ending:
            _say_ready(house, announce)
            house.lineup.log_all()
            for text in house.said("confined"):
                log.log(logging.WARNING if text.startswith(PARTLY) else logging.INFO, "decode workers are %s", text)
            _run(house, signals, config, reread)
        _drain(house, signals)
    finally:
        house.stop()
    if house.state == State.FAILED:
        for model in plan.models:  # one of these may be the reason
            for warning in model.spec.warnings:
                log.warning("model %s: %s", model.name, warning)
        log.error("%s", house.failure)
        return 1
    return _say_how_it_ended(house)


def _run(house: House, signals: Signals, config: ServerConfig, reread: Reread | None) -> None:
    while house.state == State.SERVING and not signals.ending:
        house.run_until(lambda: signals.any or house.state != State.SERVING)
        if signals.take_reload() and house.state == State.SERVING and not signals.ending:
            _reload(house, signals, config, reread)


def _reload(house: House, signals: Signals, config: ServerConfig, reread: Reread | None) -> None:
    """Read the configuration again, take over what can be, and say what became of it."""
    if reread is None:
        log.warning("SIGHUP: there is nothing to read again")
        return
    try:
        told = reread()
    except (ConfigError, OSError) as error:  # the latter where a relative path starts in a folder that is gone
        log.error("SIGHUP: the configuration was not taken over, and everything stays as it is: %s", error)
        return
    reload = house.reload(told.models or zoo_models())
    house.run_until(lambda: reload.done or signals.ending or house.state != State.SERVING)
    if reload.done:
        log.info("SIGHUP: configuration taken over; %s", reload)
    for why in reload.refused.values():
        log.error("SIGHUP: not taken over, and served as before where it was: %s", why)
    if restart := needs_restart(config, told):
        log.warning("SIGHUP: these settings have changed and take a restart: %s", ", ".join(restart))


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
