"""The servers: how each is started, reached and stopped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import free_port
from benchmarks.peers.filters import OWN, table_of
from benchmarks.peers.work import Setup
from parallel_infer import Client
from parallel_infer.tools.local_server import local_server

HERE = Path(__file__).resolve().parent
_START_TIMEOUT = 120.0  # seconds
_STOP_TIMEOUT = 20.0
_LAST_WORDS = 2000  # characters of a peer's log that are shown when it fails


class PeerFailed(Exception):
    """A peer did not start, or its load failed; the text says why."""


@dataclass(frozen=True)
class Peer:
    """A server that is not ours."""

    name: str
    title: str
    path: str  # where it takes pictures
    kind: str = "http"  # of connection
    work: str = "server"  # which of its programs in servers/ is started: NAME_WORK.py

    @property
    def python(self) -> Path:
        return HERE / ".venvs" / self.name / "bin" / "python"

    @property
    def is_built(self) -> bool:
        return self.python.exists()


PEERS = {
    peer.name: peer
    for peer in (
        Peer("litserve", "LitServe", "/predict"),
        Peer("mosec", "Mosec", "/inference"),
        Peer("triton", "Triton Python", "/v2/models/peer/infer", kind="triton"),
        Peer("ray", "Ray Serve", "/predict"),
        Peer("fastapi", "FastAPI", "/predict"),
    )
}


CHAINS = {"triton": Peer("triton", "Triton BLS", "/v2/models/chain/infer", kind="triton", work="chain")}


@dataclass(frozen=True)
class Running:
    """A server that is ready, and what the load has to know about it."""

    route: dict[str, Any]
    seconds_to_ready: float
    first_answers: Sequence[dict[str, Any] | None] = ()  # of a peer about the photographs, when it became ready
    own_trial: str = ""  # of ours: what came of the trial of settings that it makes by itself

    def load(self, points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The figures of each point, in order."""
        found: list[dict[str, Any]] = self._fulfilled({"what": "load", "points": list(points)})
        return found

    def photographs(self) -> list[dict[str, Any] | None]:
        """The answers for the shipped photographs."""
        found: list[dict[str, Any] | None] = self._fulfilled({"what": "photographs"})
        return found

    def _fulfilled(self, order: dict[str, Any]) -> Any:
        command = [sys.executable, str(HERE / "load.py")]
        text = json.dumps(self.route | order)
        done = subprocess.run(command, check=False, input=text, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise PeerFailed(f"the load ended with exit code {done.returncode}")
        return json.loads(done.stdout)


@dataclass(frozen=True)
class Served:
    """What our server is asked."""

    path: str
    second: str = ""  # path of the model that a chain asks about each object of the first
    filter: str = OWN

    def arguments(self, folder: Path) -> list[str]:
        """Those of `serve`; in `folder` lies what it reads."""
        words = ["--model", f"model={self.path}"]
        if self.second:
            words += ["--model", f"second={self.second}", "--chain", "chain=model > second"]
        if text := table_of(self.filter, ("model", "second") if self.second else ("model",)):
            (folder / "filters.toml").write_text(text)
            words += ["--config", str(folder / "filters.toml")]
        return words


@contextlib.contextmanager
def ours(
    served: Served, options: Sequence[str], timeout: float, ways: Sequence[str] = ("wire",)
) -> Iterator[dict[str, Running]]:
    """Our server as its users start it, on tcp like the others, by the way it is asked: "wire" or "http"."""
    bind, port, asked = f"tcp://127.0.0.1:{free_port()}", free_port(), "chain" if served.second else "model"
    words = ["--bind", bind, "--log-level", "warning", *options]
    if "http" in ways:
        words += ["--http", f"127.0.0.1:{port}", "--timeout-ms", str(round(timeout * 1000))]
    with (
        tempfile.TemporaryDirectory(prefix="peer-ours-") as folder,
        local_server(*served.arguments(Path(folder)), *words) as server,
    ):
        routes = {
            "wire": {"kind": "ours", "address": server.address, "model": asked, "timeout": timeout},
            "http": {"kind": "ours over http", "port": port, "path": f"/infer/{asked}"},
        }
        with Client(server.address) as client:
            own_trial = client.status()["models"]["model"]["trial"]
        yield {way: Running(routes[way], server.seconds_to_ready, own_trial=own_trial) for way in ways}


@contextlib.contextmanager
def started(peer: Peer, setup: Setup) -> Iterator[Running]:
    """The peer in its own environment and process group; ready once it has answered a picture."""
    begin = time.monotonic()
    with launched(peer, setup) as (process, log):
        route = {"kind": peer.kind, "port": setup.port, "path": peer.path}
        answers = _first_answers(process, Running(route, time.monotonic() - begin), log)
        yield Running(route, time.monotonic() - begin, answers)


@contextlib.contextmanager
def launched(peer: Peer, setup: Setup) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The peer's process, which has opened its port, and its log. Raises PeerFailed."""
    with tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as folder:
        log = Path(folder) / "log"
        process = _spawn(peer, setup, Path(folder), log)
        try:
            _wait_until_open(process, setup.port, log)
            yield process, log
        finally:
            _stop(process)
            for kept in Path(folder).glob("peer-triton-*"):  # names its memory so, and leaves some when it is killed
                for segment in Path("/dev/shm").glob(f"{kept.name}-*"):
                    segment.unlink(missing_ok=True)


def _spawn(peer: Peer, setup: Setup, folder: Path, log: Path) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= setup.environment()
    environment |= {"PYTHONPATH": str(HERE), "PEER_PATH": str(HERE), "PEER_FOLDER": str(folder)}
    environment |= {"RAY_TMPDIR": str(folder), "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [str(peer.python), "-m", f"servers.{peer.name}_{peer.work}"]
    with log.open("wb") as output:
        return subprocess.Popen(
            # In a session of its own, Linux would give it half of the cores, however many processes it has.
            command,
            cwd=HERE,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )


def _wait_until_open(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < end:
        _still_running(process, log)
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(0.1)  # between two attempts; a peer has no other way to say that it is ready
    raise PeerFailed(f"the server did not open its port within {_START_TIMEOUT:.0f} s:\n{_last_words(log)}")


def _first_answers(process: subprocess.Popen[bytes], running: Running, log: Path) -> Sequence[dict[str, Any] | None]:
    """Those about the photographs, when all are there."""
    end = time.monotonic() + _START_TIMEOUT
    while None in (answers := running.photographs()):
        _still_running(process, log)
        if time.monotonic() > end:
            raise PeerFailed(f"the server answered no picture within {_START_TIMEOUT:.0f} s:\n{_last_words(log)}")
    return answers


def _still_running(process: subprocess.Popen[bytes], log: Path) -> None:
    if process.poll() is not None:
        raise PeerFailed(f"the server ended with exit code {process.returncode}:\n{_last_words(log)}")


def _last_words(log: Path) -> str:
    return log.read_text(errors="replace")[-_LAST_WORDS:]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the peer, then SIGKILL to whatever is left of its process group."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_TIMEOUT)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
