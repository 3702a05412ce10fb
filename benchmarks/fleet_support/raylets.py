"""A Ray cluster whose machines are loopback addresses of this one, each with all its processes below one of ours."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

_PORT = 6399  # of the head
DASHBOARD = "http://127.0.0.1:8265"
_START = 180.0  # seconds
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}


class Raylet:
    """A machine: `ray start --block` and everything below it. The first is the head, which takes no server."""

    def __init__(self, number: int, folder: Path) -> None:
        self.ip = f"127.0.1.{number}"
        ports = {
            "dashboard-agent-listen-port": 52400, "metrics-export-port": 52500, "dashboard-agent-grpc-port": 52600,
            "runtime-env-agent-port": 52700, "node-manager-port": 52800, "object-manager-port": 52900,
        }  # fmt: skip
        words = ["start", "--block", "--node-ip-address", self.ip, "--num-cpus=4", "--num-gpus=0"]
        words += ["--object-store-memory=80000000", "--disable-usage-stats"]
        words += [f"--{name}={first + number}" for name, first in ports.items()]
        words += [f"--min-worker-port={20000 + number * 200}", f"--max-worker-port={20150 + number * 200}"]
        if number == 1:
            words += ["--head", f"--port={_PORT}", f"--temp-dir={folder}", "--dashboard-host=127.0.0.1"]
        else:
            words += [f"--address=127.0.1.1:{_PORT}", '--resources={"vision": 1}']
        self._log = (folder.parent / f"raylet-{number}.log").open("wb")
        self._process = subprocess.Popen(
            [Path(sys.executable).with_name("ray"), *words],
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, **_ENVIRONMENT},
            process_group=0,
        )

    def tree(self) -> list[psutil.Process]:
        """All its processes, the server's among them."""
        try:
            process = psutil.Process(self._process.pid)
            return [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def send(self, number: signal.Signals) -> None:
        """A signal to all of them at once, as near as that can be had."""
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def kill(self) -> None:
        """End all of it as a power cut would."""
        tree = self.tree()
        self.send(signal.SIGKILL)
        psutil.wait_procs(tree, timeout=30)
        self._process.wait()
        self._log.close()


class Cluster:
    """The head and its machines by their number."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "ray"
        self.raylets: dict[int, Raylet] = {}

    def add(self, number: int) -> Raylet:
        """Start a machine; it joins by itself."""
        self.raylets[number] = Raylet(number, self._folder)
        return self.raylets[number]

    def with_server(self) -> Raylet:
        """A machine that has a server now."""
        return next(raylet for raylet in self.raylets.values() if named(raylet.tree(), "parallel-infer: supervisor"))

    def close(self) -> None:
        """End everything."""
        for raylet in reversed(self.raylets.values()):
            raylet.kill()


@contextlib.contextmanager
def cluster(folder: Path, machines: int) -> Iterator[Cluster]:
    """A cluster whose head answers and whose machines are there."""
    from parallel_infer.errors import InferError
    from parallel_infer.fleet.head import Head

    found, head = Cluster(folder), Head(DASHBOARD)
    try:
        for number in range(1, machines + 2):
            found.add(number)
            end = time.monotonic() + _START
            while True:
                with contextlib.suppress(InferError):
                    if len(head.nodes()) == number:
                        break
                if time.monotonic() > end:
                    raise SystemExit(
                        f"machine {number} of the cluster does not start; see {folder}/raylet-{number}.log"
                    )
                time.sleep(0.2)
        yield found
    finally:
        found.close()


def named(processes: list[psutil.Process], title: str) -> list[psutil.Process]:
    """Those with a title: what setproctitle has written for them."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if title in " ".join(process.cmdline()):
                found.append(process)
    return found
