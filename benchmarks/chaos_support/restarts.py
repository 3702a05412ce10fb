"""A server that is stopped and started again on the same address, as a new version of it asks for."""

from __future__ import annotations

import contextlib
import math
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from benchmarks.chaos_support.faults import Incident, three
from parallel_infer.tools.local_server import LocalServer, local_server


class SuccessiveServers:
    """One server after the other, the same options and the same address."""

    def __init__(self, address: str, options: tuple[str, ...]) -> None:
        self.address = address
        self.unclean: list[int] = []  # exit codes that were not 0
        self._options = ("--bind", address, *options)
        self._stack = contextlib.ExitStack()
        with ThreadPoolExecutor(1) as thread:  # a server of the main thread takes signals over, and only there
            self._now = thread.submit(self._start).result()

    def processes(self) -> list[int]:
        """The process ids of the one that runs."""
        return self._now.processes()

    def restart(self) -> None:
        """SIGTERM, its end, and a new one; returns when that is ready."""
        self.stop()
        self._now = self._start()

    def stop(self) -> None:
        """SIGTERM, and its end."""
        self._stack.close()
        code = self._now.process.returncode
        if code:
            self.unclean.append(code)

    def _start(self) -> LocalServer:
        return self._stack.enter_context(local_server(*self._options))


@contextlib.contextmanager
def successive_servers(*options: str) -> Iterator[SuccessiveServers]:
    """Servers on an ipc address of their own; the last one is stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="pi-chaos-") as folder:
        servers = SuccessiveServers(f"ipc://{folder}/server", options)
        try:
            yield servers
        finally:
            servers.stop()


class Restarter:
    """Restarts the server at random times until it is ended, or has done so `most` times; takes a Saboteur's place."""

    def __init__(
        self, servers: SuccessiveServers, every: tuple[float, float], seed: int, most: float = math.inf
    ) -> None:
        self._most = most
        self.incidents: list[Incident] = []
        self.superseded = 0  # nobody is hurt while it is down
        self._servers = servers
        self._every = every
        self._random = random.Random(seed)
        self._unserved: list[Incident] = []
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Restarter:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()

    def answered(self, sent: float) -> None:
        """A job that was sent at `sent` has its answer now."""
        with self._lock:
            for incident in [incident for incident in self._unserved if incident.at < sent]:
                incident.served = time.monotonic()
                self._unserved.remove(incident)

    def _run(self) -> None:
        while not self._end.wait(self._random.uniform(*self._every)) and len(self.incidents) < self._most:
            incident = Incident("server", "server", time.monotonic(), len(self.incidents) + 1)
            with self._lock:
                self._unserved.append(incident)
            self._servers.restart()
            incident.back = time.monotonic()
            self.incidents.append(incident)

    def lines(self) -> list[str]:
        """For people."""
        served = three([i.served - i.at for i in self.incidents if i.served is not None])
        back = three([i.back - i.at for i in self.incidents if i.back is not None])
        return [
            f"{len(self.incidents)} restarts, {len(self._servers.unclean)} of them with another exit code than 0",
            f"seconds to the next answer: p50 {served[0]}, p99 {served[1]}, max {served[2]}",
            f"seconds to readiness:       p50 {back[0]}, p99 {back[1]}, max {back[2]}",
        ]
