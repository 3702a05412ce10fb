"""`serve`: the whole life of a server, from the sweep of dead runs to the last segment."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import sys
from enum import Enum
from pathlib import Path

from setproctitle import setproctitle

from parallel_infer.config import ServerConfig
from parallel_infer.errors import ConfigError, ModelRejected
from parallel_infer.logs import start_logging
from parallel_infer.plan import make_plan
from parallel_infer.rundir import make_run_directory, sweep_directories
from parallel_infer.segment import RunMark, sweep
from parallel_infer.supervisor.house import House, State

log = logging.getLogger(__name__)


class Announce(Enum):
    """How readiness is said on stdout."""

    TEXT = "text"
    JSON = "json"


def serve(config: ServerConfig, announce: Announce = Announce.TEXT) -> int:
    """Serve until SIGTERM, SIGINT or a client's stop. Returns the exit code: 0 after a clean stop, else 1."""
    setproctitle("parallel-infer: supervisor")
    start_logging(config.log_format, config.log_level, "supervisor")
    for run in sweep():
        log.info("removed what a dead run left in shared memory (%s)", run)
    sweep_directories()
    mark = RunMark()
    folder = make_run_directory(mark.run)
    try:
        return _serve(config, announce, mark, folder)
    except (ConfigError, ModelRejected) as error:
        log.error("%s", error)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        mark.remove()


def _serve(config: ServerConfig, announce: Announce, mark: RunMark, folder: Path) -> int:
    plan = make_plan(config, mark.segment_name)
    for model in plan.models:
        for warning in model.spec.warnings:
            log.warning("model %s: %s", model.name, warning)
    signals: list[int] = []
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    house = House(config, plan, mark, folder, read)
    handlers = {number: signal.signal(number, lambda got, _: signals.append(got)) for number in _ENDINGS}
    previous = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        house.start()
        house.run_until(lambda: bool(signals) or house.state != State.STARTING)
        if house.state == State.SERVING and not signals:
            _say_ready(house, announce)
            house.run_until(lambda: bool(signals) or house.state != State.SERVING)
        _drain(house, signals, read)
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        house.stop()
        os.close(read)
        os.close(write)
    if house.state == State.FAILED:
        log.error("%s", house.failure)
        return 1
    return 0


_ENDINGS = (signal.SIGTERM, signal.SIGINT)


def _drain(house: House, signals: list[int], read: int) -> None:
    """Let admitted jobs finish; a second signal ends the waiting."""
    if house.state in (State.SERVING, State.STARTING):
        _forget(signals, read)
        house.drain()
    if house.state == State.DRAINING:
        house.run_until(lambda: bool(signals) or house.state != State.DRAINING)


def _forget(signals: list[int], read: int) -> None:
    signals.clear()
    with contextlib.suppress(BlockingIOError):
        os.read(read, 4096)


def _say_ready(house: House, announce: Announce) -> None:
    names = list(house.models)
    if announce is Announce.JSON:
        line = json.dumps({"ready": True, "addresses": house.addresses, "models": names})
    else:
        line = f"ready: {' '.join(house.addresses)} ({', '.join(names)})"
    print(line, file=sys.stdout, flush=True)
