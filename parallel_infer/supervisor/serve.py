"""`serve`: the whole life of a server, from the sweep of dead runs to the last segment."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Self

from setproctitle import setproctitle

from parallel_infer.config import ServerConfig
from parallel_infer.config_sources import check_addresses, zoo_models
from parallel_infer.errors import ConfigError, ModelRejected
from parallel_infer.logs import start_logging
from parallel_infer.memory_report import check_memory, shared_memory
from parallel_infer.plan import make_plan
from parallel_infer.rundir import make_run_directory, sweep_directories
from parallel_infer.segment import RunMark, sweep
from parallel_infer.supervisor.crew import inside_door
from parallel_infer.supervisor.exporter import metrics_page
from parallel_infer.supervisor.house import House, State

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
    for number in _ENDINGS:
        signal.signal(number, signal.default_int_handler)
    start_logging(config.log_format, config.log_level, "supervisor")
    for run in sweep():
        log.info("removed what a dead run left in shared memory (%s)", run)
    sweep_directories()
    mark = RunMark()
    folder: Path | None = None
    try:
        folder = make_run_directory(mark.run)
        with _metrics(config, folder):
            return _serve(config, announce, reread, mark, folder)
    except (ConfigError, ModelRejected) as error:
        log.error("%s", error)
        return 1
    except KeyboardInterrupt:  # while models were probed: nothing else had started
        return 0
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        mark.remove()


def _metrics(config: ServerConfig, folder: Path) -> contextlib.AbstractContextManager[None]:
    if not config.metrics_port:
        return contextlib.nullcontext()
    return metrics_page(config.metrics_host, config.metrics_port, inside_door(folder))


def _serve(config: ServerConfig, announce: Announce, reread: Reread | None, mark: RunMark, folder: Path) -> int:
    plan = make_plan(config, mark.segment_name)
    check_memory(plan, shared_memory())
    for model in plan.models:
        for warning in model.spec.warnings:
            log.warning("model %s: %s", model.name, warning)
    with _Signals() as signals:
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
    return 0


def _run(house: House, signals: _Signals, reread: Reread | None) -> None:
    while house.state == State.SERVING and not signals.ending:
        house.run_until(lambda: signals.any or house.state != State.SERVING)
        if signals.take_reload():
            _reload(house, reread)


def _reload(house: House, reread: Reread | None) -> None:
    if reread is None:
        log.warning("nothing to read again: the server was started without a configuration file")
        return
    try:
        house.reload(reread().models or zoo_models())
    except ConfigError as error:
        log.error("the configuration was not taken over: %s", error)


class _Signals:
    """Signals as something to look at: handlers only note what came, and a descriptor wakes the loop."""

    def __enter__(self) -> Self:
        self._got: list[int] = []
        self.descriptor, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._handlers = {number: signal.signal(number, self._note) for number in (*_ENDINGS, signal.SIGHUP)}
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        return self

    def __exit__(self, *error: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self.descriptor)
        os.close(self._write)

    def _note(self, number: int, frame: object) -> None:
        self._got.append(number)

    @property
    def any(self) -> bool:
        """Whether a signal waits to be acted on."""
        return bool(self._got)

    @property
    def ending(self) -> bool:
        """Whether an end was asked for."""
        return any(number in _ENDINGS for number in self._got)

    def take_reload(self) -> bool:
        """Whether the configuration is to be read again; asks once per signal."""
        self._empty()
        asked = signal.SIGHUP in self._got
        self._got = [number for number in self._got if number != signal.SIGHUP]
        return asked

    def forget(self) -> None:
        """Act on no signal that came so far."""
        self._got.clear()
        self._empty()

    def _empty(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, 4096)


_ENDINGS = (signal.SIGTERM, signal.SIGINT)


def _drain(house: House, signals: _Signals) -> None:
    """Let admitted jobs finish; a second signal ends the waiting."""
    if house.state in (State.SERVING, State.STARTING):
        house.drain()
    signals.forget()
    if house.state == State.DRAINING:
        house.run_until(lambda: signals.ending or house.state != State.DRAINING)


def _say_ready(house: House, announce: Announce) -> None:
    names = house.names
    if announce is Announce.JSON:
        line = json.dumps({"ready": True, "addresses": house.addresses, "models": names})
    else:
        line = f"ready: {' '.join(house.addresses)} ({', '.join(names)})"
    print(line, file=sys.stdout, flush=True)
