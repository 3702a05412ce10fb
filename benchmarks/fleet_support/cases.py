"""What is done to a fleet while jobs run: each case is a function that returns when the fleet is whole again."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.fleet_support.raylets import DASHBOARD, Cluster, named
from parallel_infer.fleet.head import Head
from parallel_infer.fleet.report import is_running, parts_of

NAME = "bar"
_WHOLE = 180.0  # seconds until a fleet is whole again
_LOOK = 0.3


class FleetUnderTest:
    """A deployed fleet: what its file says, and how it is doing."""

    def __init__(self, cluster: Cluster, file: Path, model: Path, port: int) -> None:
        self.cluster, self.port = cluster, port
        self.calm = threading.Event()  # set: the load shall be small
        self.settings: dict[str, object] = {"max_batch_size": 4}
        self.most_lost = 3
        self.models = {"identity": str(model)}
        self._file, self._head = file, Head(DASHBOARD)

    def deploy(self, nodes: str = "3", *, works: bool = True) -> None:
        """Write the file and deploy it, as users do; `works` is whether it is to."""
        settings = "".join(f"{name} = {value}\n" for name, value in self.settings.items())
        models = "".join(f'[models.{name}]\npath = "{path}"\n' for name, path in self.models.items())
        self._file.write_text(
            "instances = 1\ndecode_workers = 1\npostprocess_workers = 1\nthreads = 1\nshared_memory_mb = 16\n"
            'max_payload_mb = 4\nprovider = "cpu"\nlog_level = "warning"\n'
            f'{settings}[fleet]\nname = "{NAME}"\ncpus = 1\nresources = {{ vision = 1 }}\nport = {self.port}\n'
            f"target_pending = 6\nscale_up_ms = 1000\nscale_down_ms = 3000\nmost_lost = {self.most_lost}\n{models}"
        )
        words = ["deploy", "--ray", DASHBOARD, "--config", str(self._file), "--nodes", nodes]
        command = [sys.executable, "-m", "parallel_infer", *words]
        done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if (done.returncode == 0) != works:
            raise SystemExit(f"deploy has {'failed' if works else 'not failed'}: {done.stderr}")

    def wait_for(self, nodes: int) -> None:
        """Wait until so many servers run, and no other is on its way."""
        end, parts = time.monotonic() + _WHOLE, []
        while time.monotonic() < end:
            parts = parts_of(self._head.applications(), NAME)
            if is_running(parts) and [len(parts[-1].replicas), parts[-1].running] == [nodes, nodes]:
                return
            time.sleep(_LOOK)
        raise SystemExit(f"the fleet has not got {nodes} servers within {_WHOLE:g} s: {parts}")

    def wait_for_a_loss(self) -> None:
        """Wait until Ray has noticed that something is gone."""
        end = time.monotonic() + _WHOLE
        while is_running(parts := parts_of(self._head.applications(), NAME)) and parts[-1].running == 3:
            if time.monotonic() > end:
                raise SystemExit(f"Ray has noticed nothing within {_WHOLE:g} s")
            time.sleep(_LOOK)


def kill(fleet: FleetUnderTest) -> None:
    """A machine with everything on it ends; another one joins."""
    number = next(number for number, raylet in fleet.cluster.raylets.items() if raylet is fleet.cluster.with_server())
    fleet.cluster.raylets.pop(number).kill()
    fleet.wait_for_a_loss()
    fleet.cluster.add(max(fleet.cluster.raylets) + 1)
    fleet.wait_for(3)


def stop(fleet: FleetUnderTest) -> None:
    """A machine does nothing for five seconds, as one behind a dead switch, and comes back."""
    raylet = fleet.cluster.with_server()
    raylet.send(signal.SIGSTOP)
    time.sleep(5)
    raylet.send(signal.SIGCONT)
    fleet.wait_for(3)


def server(fleet: FleetUnderTest) -> None:
    """A server ends without its machine."""
    (supervisor,) = named(fleet.cluster.with_server().tree(), "parallel-infer: supervisor")
    supervisor.kill()
    fleet.wait_for_a_loss()
    fleet.wait_for(3)


def router(fleet: FleetUnderTest) -> None:
    """The router ends."""
    (process,) = named(fleet.cluster.raylets[1].tree(), "parallel-infer: router")
    process.kill()
    time.sleep(5)
    fleet.wait_for(3)


def registry(fleet: FleetUnderTest) -> None:
    """The registry ends: routers keep the last list, the nodes make a new one."""
    (process,) = named(fleet.cluster.raylets[1].tree(), "ray::Registry")
    process.kill()
    time.sleep(5)
    fleet.wait_for(3)


def rolling(fleet: FleetUnderTest) -> None:
    """Servers of other settings replace those that run, one by one."""
    fleet.settings["max_batch_size"] = 6
    fleet.deploy()
    fleet.wait_for(3)


def models(fleet: FleetUnderTest) -> None:
    """A model more, and less again, without a restart."""
    fleet.models["other"] = fleet.models["identity"]
    fleet.deploy()
    del fleet.models["other"]
    fleet.deploy()
    fleet.wait_for(3)


def missing(fleet: FleetUnderTest) -> None:
    """A model that no machine has is refused by the first that is asked; the others go on, and then all of them."""
    fleet.models["other"] = "/nowhere/other.onnx"
    fleet.deploy(works=False)
    del fleet.models["other"]
    fleet.deploy()
    fleet.wait_for(3)


def fewer(fleet: FleetUnderTest) -> None:
    """Three servers, one, three."""
    fleet.deploy("1")
    fleet.wait_for(1)
    fleet.deploy("3")
    fleet.wait_for(3)


def scaled(fleet: FleetUnderTest) -> None:
    """One server; as many as the jobs under way ask for; one again when there is nearly nothing to do."""
    fleet.calm.set()
    fleet.deploy("1")
    fleet.wait_for(1)
    fleet.deploy("1..3")
    fleet.calm.clear()
    fleet.wait_for(3)
    fleet.calm.set()
    fleet.wait_for(1)
    fleet.calm.clear()
    fleet.deploy("3")
    fleet.wait_for(3)


def control(fleet: FleetUnderTest) -> None:
    """`kill` where a router gives no job to another server: at least one must be lost, or the count shows nothing."""
    kill(fleet)


CASES: dict[str, Callable[[FleetUnderTest], None]] = {
    case.__name__: case
    for case in (kill, stop, server, router, registry, rolling, models, missing, fewer, scaled, control)
}
