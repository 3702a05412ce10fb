"""Routers and members as processes of their own, for tests with real sockets."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from parallel_infer import Client
from tests.engine.serving import PATIENCE

ECHO = Path(__file__).parents[2] / "benchmarks" / "router_support" / "echo_server.py"


class Process:
    """A process that says one line when it is ready."""

    def __init__(self, command: list[str], log: Path) -> None:
        self.command = command
        self.log = log
        self.start()

    def start(self) -> None:
        """Once more, at the same address."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, *self.command], stdout=subprocess.PIPE, stderr=log)
        assert self.process.stdout is not None
        there, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        assert there, f"nothing said within {PATIENCE} s: {self.log.read_text()}"
        self.line = self.process.stdout.readline().decode().strip()
        assert self.line, self.log.read_text()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.close()

    def stop(self) -> int:
        """As an administrator would; its exit code."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Echo(Process):
    """A member that answers with the payload after `seconds`."""

    def __init__(self, folder: Path, name: str, seconds: float = 0.0, models: tuple[str, ...] = ("echo",)) -> None:
        self.address = f"ipc://{folder}/{name}"
        super().__init__([str(ECHO), self.address, str(seconds), "0", *models], folder / f"{name}.log")


class Router(Process):
    """`parallel-infer route` with these members."""

    def __init__(self, folder: Path, *options: str, name: str = "router") -> None:
        bind = [] if "--bind" in options else ["--bind", f"ipc://{folder}/{name}"]
        super().__init__(["-m", "parallel_infer", "route", "--json", *bind, *options], folder / f"{name}.log")
        self.addresses: list[str] = json.loads(self.line)["addresses"]
        self.address = self.addresses[0]

    def client(self, timeout: float = 30.0) -> Client:
        return Client(self.address, timeout=timeout)


@contextlib.contextmanager
def closing_all() -> Iterator[list[Process]]:
    """Ends everything that is put into the list."""
    processes: list[Process] = []
    try:
        yield processes
    finally:
        for process in processes:
            process.close()


def payload(number: int, size: int = 64) -> dict[str, npt.NDArray[np.uint8]]:
    """Bytes of its own for each job."""
    data = np.frombuffer((b"%016d" % number) * (size // 16), np.uint8)
    return {"x": data}


def as_members(*members: Echo) -> list[str]:
    return [word for member in members for word in ("--member", member.address)]


def freeze(process: Process) -> None:
    os.kill(process.process.pid, signal.SIGSTOP)
