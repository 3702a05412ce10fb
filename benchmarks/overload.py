"""More than the server can do: what still gets done, how long it takes, and how soon the rest is refused.

    python benchmarks/overload.py [--seconds 8] [--loads 0.8,1,2,10] [--deaf-rounds 4] [--timeout 10] [--queue 64]

Measures the capacity in a closed loop, then sends at random moments (open loop) at multiples of it: goodput, latency of
what was accepted, latency of refusals, memory. Then measures, in turns, the p99 of a light load beside a client
that never reads its replies and beside one that does. Ends with 1 where a bound is broken:

- goodput at 2x and 10x at least 90 % of the peak;
- p99 of accepted jobs at most twice that at 0.8x, plus what a full queue takes;
- refusals within 10 ms (p99), as the client sees them;
- a client that does not read changes the others' p99 by less than 10 %.

The load shares the machine with the server: on few cores, the last two say as much about the scheduler of the kernel.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import msgspec
import numpy as np
import onnx
import zmq
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.footprint import memory
from benchmarks.machine import print_header
from parallel_infer import Client
from parallel_infer.client.connection import Connection
from parallel_infer.client.endpoint import Address
from parallel_infer.client.payload import payload_of
from parallel_infer.client.pending import Outcome, Pending
from parallel_infer.client.requests import job_of
from parallel_infer.errors import InferError
from parallel_infer.tools.local_server import LocalServer, local_server

MODEL, SIDE = "work", 64
TIMEOUT = 10.0  # seconds


def write_work_model(path: Path, steps: int) -> None:
    """Write a model of float32 [batch, SIDE, SIDE] that takes some milliseconds: `steps` products of matrices."""
    noise = np.random.default_rng(1).normal(0, 1 / SIDE, (SIDE, SIDE)).astype(np.float32)
    nodes = [helper.make_node("MatMul", [f"x{step}" if step else "x", "w"], [f"x{step + 1}"]) for step in range(steps)]
    nodes.append(helper.make_node("ReduceSum", [f"x{steps}", "axes"], ["y"], keepdims=0))
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", SIDE, SIDE])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"])
    graph = helper.make_graph(nodes, "work", [given], [answer], [numpy_helper.from_array(noise, "w"), axes])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


@dataclass
class Seen:
    """What one load saw: seconds of each answer and of each refusal, other errors, and the time it took."""

    answers: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def goodput(self) -> float:
        """Answers per second."""
        return len(self.answers) / self.seconds


class Sender:
    """Sends over one connection of the client, from one thread."""

    def __init__(self, address: str, timeout: float = TIMEOUT) -> None:
        self._connection = Connection(Address(address, None))
        self._job = job_of(MODEL, timeout, 0, {})
        self._payload = payload_of({"x": np.ones((SIDE, SIDE), np.float32)})
        self._seen = Seen()
        self._in_flight = 0

    def closed(self, seconds: float, in_flight: int) -> Seen:
        """So many jobs under way at any time."""
        self._seen, began = Seen(), time.monotonic()
        while time.monotonic() < began + seconds:
            while self._in_flight < in_flight:
                self._send()
            self._connection.receive(None)
        self._finish(began)
        return self._seen

    def open(self, seconds: float, rate: float) -> Seen:
        """So many jobs per second on average, at random moments, whatever the server does."""
        source, began = random.Random(1), time.monotonic()
        self._seen, due = Seen(), began
        while (due := due + source.expovariate(rate)) < began + seconds:
            while (left := due - time.monotonic()) > 0:
                if not self._connection.drain():
                    self._connection.receive(left) if left > 0.002 else time.sleep(min(left, 0.0002))
            self._connection.drain()
            self._connection.upkeep_if_due()
            self._send()
        self._finish(began)
        return self._seen

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _finish(self, began: float) -> None:
        """The time counts until the last answer: what waits in queues is work as well."""
        while self._in_flight:
            self._connection.receive(None)
        self._seen.seconds = time.monotonic() - began

    def _send(self) -> None:
        self._in_flight += 1
        self._connection.post(self._job.pending(self._connection, self._payload, self._settle))

    def _settle(self, pending: Pending, outcome: Outcome) -> None:
        self._in_flight -= 1
        took = time.monotonic() - (pending.deadline - pending.timeout)
        if not isinstance(outcome, InferError):
            self._seen.answers.append(took)
        elif outcome.code == "RESOURCE_UNAVAILABLE":
            self._seen.refusals.append(took)
        else:
            self._seen.errors[outcome.code] = self._seen.errors.get(outcome.code, 0) + 1


def p99(values: list[float]) -> float:
    """The 99th percentile, in seconds; 0 of none."""
    return float(np.percentile(values, 99)) if values else 0.0


def pss(server: LocalServer) -> float:
    """Megabytes of all processes of the server, rings not counted."""
    total = 0
    for process in server.processes():
        whole, shared = memory(process)
        total += whole - shared
    return total / 2**20


class Neighbour(Enum):
    """What another client does with its replies."""

    READS = "reads"
    DEAF = "deaf"


@contextlib.contextmanager
def beside(neighbour: Neighbour, address: str, rate: float) -> Iterator[None]:
    """Another client that sends all the while, in both cases the same."""
    end = threading.Event()
    header: dict[str, object] = {"v": 1, "type": "infer", "model": MODEL, "kind": "tensors", "timeout": TIMEOUT}
    header["tensors"] = [["x", "float32", [SIDE, SIDE]]]
    body = np.ones((SIDE, SIDE), np.float32).tobytes()

    def run() -> None:
        number = 0
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.linger, socket.rcvhwm = 0, 1
            socket.connect(address)
            while not end.wait(1 / rate):
                while neighbour is Neighbour.READS and socket.poll(0):
                    socket.recv_multipart()
                number += 1
                with contextlib.suppress(zmq.Again):
                    socket.send_multipart([msgspec.msgpack.encode({**header, "id": number}), body], zmq.NOBLOCK)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    end.set()
    thread.join()


def overloaded(server: LocalServer, loads: list[float], seconds: float, timeout: float) -> list[str]:
    """Print goodput and latencies at multiples of the capacity; which bounds are broken."""
    sender = Sender(server.address, timeout)
    sender.closed(2.0, 32)
    capacity = sender.closed(seconds, 32).goodput
    with Client(server.address) as client:
        (model,) = client.models()
    full_queue = (model["queue_size"] + model["rows"]) / capacity  # what waits for decoding, and the rows behind it
    print(f"capacity {capacity:.0f} jobs/s; a full queue takes {full_queue * 1000:.0f} ms\n")
    columns = ("goodput", "of peak", "p50 ms", "p99 ms", "refused", "in ms p99", "errors", "MB")
    print(f"{'load':>6s}" + "".join(f"{column:>10s}" for column in columns))
    found, before = {}, pss(server)
    for load in loads:
        found[load] = seen = sender.open(seconds, capacity * load)
        peak = max(capacity, *(other.goodput for other in found.values()))
        print(f"{load:5g}x{seen.goodput:10.0f}{seen.goodput / peak:10.0%}{statistics.median(seen.answers) * 1000:10.1f}"
              f"{p99(seen.answers) * 1000:10.1f}{len(seen.refusals):10d}{p99(seen.refusals) * 1000:10.1f}"
              f"{sum(seen.errors.values()):10d}{pss(server):10.1f}")  # fmt: skip
    sender.close()
    grown = pss(server) - before
    print(f"memory grew by {grown:.1f} MB\n")
    return _broken(found, peak, full_queue, grown)


def _broken(found: dict[float, Seen], peak: float, full_queue: float, grown: float) -> list[str]:
    calm = p99(found[min(found)].answers)
    broken = [f"memory grew by {grown:.0f} MB"] if grown > 32 else []
    for load, seen in found.items():
        if load > 1 and seen.goodput < 0.9 * peak:
            broken.append(f"goodput at {load:g}x is {seen.goodput / peak:.0%} of the peak")
        if p99(seen.answers) > 2 * calm + full_queue:
            broken.append(f"p99 at {load:g}x is {p99(seen.answers):.3f} s")
        if p99(seen.refusals) > 0.010:
            broken.append(f"refusals at {load:g}x took {p99(seen.refusals) * 1000:.1f} ms (p99)")
    return broken


def beside_the_deaf(server: LocalServer, rounds: int, seconds: float) -> list[str]:
    """Print the p99 of a light load beside a client that reads its replies and beside one that does not."""
    sender, rate = Sender(server.address), 20.0
    found: dict[Neighbour, list[float]] = {neighbour: [] for neighbour in Neighbour}
    for _ in range(rounds):
        for neighbour, answers in found.items():
            with beside(neighbour, server.address, rate):
                answers += sender.open(seconds, rate).answers
    sender.close()
    deaf, reads = p99(found[Neighbour.DEAF]), p99(found[Neighbour.READS])
    change = deaf / reads - 1
    print(f"p99 beside a client that does not read {deaf * 1000:.1f} ms; beside one that does {reads * 1000:.1f} ms "
          f"({change:+.0%})")  # fmt: skip
    return [f"a client that does not read changes the p99 by {change:+.0%}"] if change > 0.10 else []


def main() -> int:
    """Measure and print; 1 where a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--loads", default="0.8,1,2,10", help="multiples of the capacity")
    parser.add_argument("--deaf-rounds", type=int, default=4)
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds a job has")
    parser.add_argument("--queue", type=int, default=64, help="places for jobs that wait for decoding")
    parser.add_argument("--steps", type=int, default=150, help="of the model: products of matrices per job")
    arguments = parser.parse_args()
    print_header()
    os.environ["PARALLEL_INFER_LOG_LEVEL"] = "error"
    with tempfile.TemporaryDirectory(prefix="pi-overload-") as folder:
        model = Path(folder) / "work.onnx"
        write_work_model(model, arguments.steps)
        options = (
            "--model",
            f"{MODEL}={model}",
            "--provider",
            "cpu",
            "--queue-size",
            str(arguments.queue),
            "--threads",
            "1",
        )
        with local_server(*options) as server:
            loads = [float(load) for load in arguments.loads.split(",")]
            broken = overloaded(server, loads, arguments.seconds, arguments.timeout)
            if arguments.deaf_rounds:
                broken += beside_the_deaf(server, arguments.deaf_rounds, arguments.seconds)
    print("\n".join(f"BROKEN: {text}" for text in broken) or "every bound holds")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
