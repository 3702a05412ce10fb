"""A server as users start it: `python -m parallel_infer serve --json` in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from parallel_infer import Client

PATIENCE = 90.0  # seconds for a server to start or stop on a busy machine
SEGMENTS = Path("/dev/shm")


class StartRefused(Exception):
    """The server ended instead of getting ready; the text is its standard error, `code` its exit code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"exit code {code}: {text}")
        self.code = code


class Server:
    """One server and the folder it lives in: its sockets, its run directory, its log."""

    def __init__(self, folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.address = ""
        self.addresses: list[str] = []
        self.models: list[str] = []
        self.run = ""
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "parallel_infer", "serve", "--json", *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                env={
                    **os.environ,
                    "PARALLEL_INFER_PROVIDER": "cpu",
                    "XDG_RUNTIME_DIR": str(folder),
                    **(environment or {}),
                },
            )
        self.supervisor = psutil.Process(self.process.pid)

    def wait_until_ready(self) -> None:
        """Read the line that says so. Raises StartRefused where the server ends instead."""
        line = self._line()
        if not line:
            code = self.process.wait(PATIENCE)
            self.close()
            raise StartRefused(code, self.log.read_text())
        said: dict[str, Any] = json.loads(line)
        assert said["ready"] is True
        self.addresses, self.models = said["addresses"], said["models"]
        self.address = self.addresses[0]
        (self.run,) = (path.name for path in self.run_directories())

    def _line(self) -> bytes:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        assert ready, f"nothing said within {PATIENCE} s: {self.log.read_text()}"
        return self.process.stdout.readline()

    def client(self, address: str = "", timeout: float = 30.0) -> Client:
        return Client(address or self.address, timeout=timeout)

    def children(self) -> dict[str, psutil.Process]:
        """Its processes by what `ps` calls them."""
        found = {}
        for child in self.supervisor.children(recursive=True):
            try:
                title = " ".join(child.cmdline()).strip()
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
            if title.startswith("parallel-infer: "):
                found[title.removeprefix("parallel-infer: ")] = child
        return found

    def child(self, title: str) -> psutil.Process:
        return self.children()[title]

    def run_directories(self) -> list[Path]:
        return list((self.folder / f"parallel-infer-{os.getuid()}").glob("*"))

    def segments(self) -> list[str]:
        return sorted(path.name for path in SEGMENTS.glob(f"pinfer-{self.run}*"))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; its exit code."""
        try:
            code = self.process.wait(PATIENCE)
        finally:
            self.close()
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def check_clean_end(self) -> None:
        """Stop it as an administrator would, and see that nothing is left."""
        family = [self.supervisor, *self.supervisor.children(recursive=True)] if self.process.poll() is None else []
        assert self.stop() == 0, self.log.read_text()
        _, alive = psutil.wait_procs(family, timeout=10)
        assert not alive
        assert self.segments() == []
        assert self.run_directories() == []


def short_folder() -> Path:
    """A new folder whose name leaves room for that of a socket; whoever asks for it removes it."""
    return Path(tempfile.mkdtemp(prefix="pi-", dir="/tmp"))


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """A server that is ready, and at last ends as it has to; its folder is removed."""
    try:
        server.wait_until_ready()
        yield server
        server.check_clean_end()
    finally:
        server.close()
        shutil.rmtree(server.folder, ignore_errors=True)


def free_port() -> int:
    """A TCP port of this machine that nobody uses."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def eventually(condition: Any, patience: float = 60.0) -> None:
    """Wait for something that another process is about to do."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
