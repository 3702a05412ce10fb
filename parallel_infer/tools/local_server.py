"""A server of one's own, for the demo, for benchmarks and for tuning: a process started as users start it."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from parallel_infer.errors import ServerUnavailable
from parallel_infer.process.endings import ended_by_signals
from parallel_infer.process.rundir import socket_directory

_STOP_TIMEOUT = 30.0  # seconds


@dataclass(frozen=True)
class LocalServer:
    """A server that is ready."""

    address: str
    models: tuple[str, ...]
    process: subprocess.Popen[str]
    seconds_to_ready: float

    def processes(self) -> list[int]:
        """The process ids of the server, the supervisor's first."""
        found = [self.process.pid]
        for task in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            found += [int(number) for number in task.read_text().split()]
        return found


@contextlib.contextmanager
def local_server(
    *options: str, stderr: IO[str] | None = None, program: tuple[str, ...] = ("-m", "parallel_infer")
) -> Iterator[LocalServer]:
    """A server started with these options of `serve`, on an ipc address of its own unless `--bind` is among them.

    `program` is what Python runs, with the arguments of the command line. Stopped with SIGTERM at the
    end. Raises ServerUnavailable where it does not start; it says why on stderr.
    """
    with ended_by_signals(), socket_directory() as folder:
        bind = () if "--bind" in options else ("--bind", f"ipc://{folder}/server")
        command = [sys.executable, *program, "serve", *bind, "--json", *options]
        started = time.monotonic()
        # In a process group of its own: a Ctrl-C reaches us, and we stop it when we have seen its last answers. Not in
        # a session of its own, to which Linux would give half of the cores, however many processes it has.
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, process_group=0)
        try:
            yield _ready(process, started)
        finally:
            _stop(process)


def _ready(process: subprocess.Popen[str], started: float) -> LocalServer:
    line = process.stdout.readline() if process.stdout is not None else ""
    if not line:
        raise ServerUnavailable(f"the server did not start (exit code {process.wait()})")
    ready = json.loads(line)
    return LocalServer(ready["addresses"][0], tuple(ready["models"]), process, time.monotonic() - started)


def _stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
