"""Members and a router as processes that can be killed, stopped and started again at the same address."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from benchmarks.machine import free_port
from parallel_infer import Client
from parallel_infer.errors import InferError

_ECHO = Path(__file__).with_name("echo_server.py")
_PATIENCE = 120.0  # seconds for a server to start on a busy machine


class Started:
    """A process and its children; it says one line when it is ready."""

    def __init__(self, address: str, words: Sequence[str]) -> None:
        self.address = address
        self._words = [sys.executable, *words]
        self.start()

    def start(self) -> None:
        """Start it, also once more, and wait until it is ready."""
        self.process = subprocess.Popen(self._words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            raise SystemExit(f"{' '.join(self._words)} did not start")

    def everybody(self) -> list[psutil.Process]:
        """Its processes, itself first."""
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def signal(self, number: int) -> None:
        """Send a signal to all of it."""
        for process in self.everybody():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def kill(self) -> None:
        """As when its machine loses its power."""
        everybody = self.everybody()
        self.signal(signal.SIGKILL)
        psutil.wait_procs(everybody)
        self._reap()

    def stop(self) -> None:
        """As an administrator does."""
        self.process.terminate()
        self._reap()

    def _reap(self) -> None:
        self.process.wait(_PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def close(self) -> None:
        """End it, whatever became of it."""
        if self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.kill()


def server(model: str, path: Path) -> Started:
    """A server of one worker a stage."""
    address = f"tcp://127.0.0.1:{free_port()}"
    few = ("--provider", "cpu", "--decode-workers", "1", "--postprocess-workers", "1", "--instances", "1")
    return Started(
        address, ["-m", "parallel_infer", "serve", "--bind", address, "--model", f"{model}={path}", "--json", *few]
    )


def echo(folder: Path, number: int, seconds: float, batch: int, model: str) -> Started:
    """A member that sleeps."""
    address = f"ipc://{folder}/echo-{number}"
    return Started(address, [str(_ECHO), address, str(seconds), str(batch), model])


class RouterUnderTest(Started):
    """A router whose members are listed in a file."""

    def __init__(self, folder: Path, members: Sequence[Started], *options: str) -> None:
        self.members = list(members)
        self._file = folder / f"members-{os.getpid()}"
        self.list(self.members)
        address = f"tcp://127.0.0.1:{free_port()}"
        words = ["-m", "parallel_infer", "route", "--bind", address, "--members", f"file:{self._file}", "--json"]
        super().__init__(address, [*words, "--look-ms", "200", *options])

    def list(self, members: Sequence[Started]) -> None:
        """Name its members."""
        new = self._file.with_suffix(".new")
        new.write_text("".join(f"{member.address}\n" for member in members))
        new.replace(self._file)

    def wait_for(self, count: int) -> None:
        """Wait until so many members are up."""
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            with contextlib.suppress(InferError), Client(self.address, timeout=10.0) as client:
                states = [member["state"] for member in client.status()["members"].values()]
                if states.count("up") == count == len(states):
                    return
            time.sleep(0.05)
        raise SystemExit(f"{count} members were not up within {_PATIENCE:g} s")


@contextlib.contextmanager
def closing(started: Sequence[Started]) -> Iterator[Sequence[Started]]:
    """End all of them at last."""
    try:
        yield started
    finally:
        for each in started:
            each.close()
