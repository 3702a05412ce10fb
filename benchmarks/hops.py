"""What passing a job on costs each process: processor time, switches of threads, and system calls, for each job.

    python benchmarks/hops.py [--model NAME=PATH] [--in-flight 1,8,64] [--jobs 4000] [--over http]

Counts say more than times on a machine that does other work too. Without `--model` it is a model that does nothing;
with a model of pictures the same 720p JPEG is sent again and again. Of the processor time, "outside" is what is left
without the stages' own (decoding, inference, postprocessing), which they count themselves (benchmarks/timed_stages.py).
System calls are counted by `perf` where that is installed and allowed, else their column has dashes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import timed_stages
from benchmarks.footprint import title
from benchmarks.fuzz_support.http_client import Conversation
from benchmarks.machine import free_port, print_header
from benchmarks.nothing_model import write_nothing_model
from benchmarks.waits import jpeg_720p
from parallel_infer import Client
from parallel_infer.tools.local_server import LocalServer, local_server

_SIZE = 100  # bytes of the payload for the model that does nothing
_WARM = 200  # jobs before those that count
_EVENT = "raw_syscalls:sys_enter"


def used(process: int) -> tuple[float, int]:
    """Microseconds of processor time and switches of threads of a process so far."""
    spent, switches = 0, 0
    for task in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended
            spent += int((task / "schedstat").read_text().split()[0])
            switches += sum(map(int, re.findall(r"ctxt_switches:\s+(\d+)", (task / "status").read_text())))
    return spent / 1000, switches


class Calls:
    """Counts the system calls of some processes, where that can be done."""

    def __init__(self, processes: list[int]) -> None:
        self.counts: dict[int, int] = {}
        self._processes = processes if shutil.which("perf") else []

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count until the end of the block."""
        command = ["perf", "stat", "-x", ",", "-e", _EVENT, "--control", "fd:0,1", "-D", "-1", "-p"]
        counters = {
            process: subprocess.Popen(
                [*command, str(process)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            for process in self._processes
        }
        with contextlib.suppress(BrokenPipeError):
            for counter in counters.values():
                self._enable(counter)
        yield
        for process, counter in counters.items():
            counter.send_signal(signal.SIGINT)
            text = counter.communicate()[1].decode()
            if found := re.search(rf"^(\d+),.*{_EVENT}", text, re.MULTILINE):
                self.counts[process] = int(found[1])

    def _enable(self, counter: subprocess.Popen[bytes]) -> None:
        """Let it begin, and wait until it says that it has."""
        if counter.stdin is None or counter.stdout is None:
            raise AssertionError("started with pipes")
        counter.stdin.write(b"enable\n")
        counter.stdin.flush()
        counter.stdout.read(4)  # "ack\n", or nothing where it may not count


async def post(address: str, model: str, picture: bytes, jobs: int, in_flight: int) -> None:
    """Send a picture `jobs` times over HTTP, over as many connections as there are requests under way."""
    host, _, port = address.rpartition(":")
    head = f"POST /infer/{model} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {len(picture)}\r\n\r\n"
    request, left = head.encode() + picture, iter(range(jobs))

    async def one(conversation: Conversation) -> None:
        for _ in left:
            status, answer = await conversation.ask(request, whole=True)
            if status != "200":
                raise SystemExit(f"{status}: {answer[:500]!r}")
        conversation.close()

    await asyncio.gather(*(one(Conversation(host, int(port))) for _ in range(in_flight)))


def measure(
    run: Callable[[int], object], server: LocalServer, stages: memoryview[float], jobs: int
) -> dict[str, list[float | None]]:
    """Per job and process: processor time in microseconds, all and outside of the stage, switches, system calls.

    `stages` is where the stages count. None: not counted.
    """
    run(_WARM)
    processes = [os.getpid(), *server.processes()]
    calls = Calls(processes)
    with calls.counted():
        before = {process: (*used(process), stages[process]) for process in processes}
        run(jobs)
        after = {process: (*used(process), stages[process]) for process in processes}
    found: dict[str, list[float | None]] = {}
    for process in processes:
        spent, switches, worked = (late - early for late, early in zip(after[process], before[process], strict=True))
        outside = spent - worked * 1e6
        name = "client" if process == os.getpid() else title(process).removeprefix("parallel-infer: ").split()[0]
        count = calls.counts.get(process)
        if switches > jobs / 10:
            found[name] = [spent / jobs, outside / jobs, switches / jobs, None if count is None else count / jobs]
    return found


def show(name: str, found: dict[str, list[float | None]]) -> None:
    """Print one table."""
    columns = list(zip(*found.values(), strict=True))
    sums = [None if None in column else sum(filter(None, column)) for column in columns]
    print(f"{name:30s} {'CPU us':>9s} {'outside':>9s} {'switches':>9s} {'calls':>9s}   for each job")
    for process, row in {**found, "all": sums}.items():
        print(f"  {process:28s} " + " ".join("        -" if value is None else f"{value:9.1f}" for value in row))
    print()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model of pictures, as `serve --model` has it")
    parser.add_argument("--in-flight", default="1,8,64", help="jobs under way at once")
    parser.add_argument("--jobs", type=int, default=4000, help="of each measurement")
    parser.add_argument("--over", default="wire", choices=("wire", "http"), help="http: with --model")
    parser.add_argument("server", nargs="*", metavar="-- OPTION", help="options of `serve`")
    arguments = parser.parse_args()
    if arguments.over == "http" and not arguments.model:
        parser.error("--over http takes pictures: name a --model")
    print_header()
    # In shared memory, the only place where decode workers may write.
    with tempfile.TemporaryDirectory(prefix="pi-hops-", dir="/dev/shm") as folder:
        path, times = Path(folder) / "nothing.onnx", Path(folder) / "times"
        timed_stages.create(times)
        os.environ[timed_stages.VARIABLE] = str(times)
        stages = timed_stages.stage_times(times)
        write_nothing_model(path, _SIZE)
        served = (
            ["--model", arguments.model] if arguments.model else ["--provider", "cpu", "--model", f"nothing={path}"]
        )
        payload: Any = jpeg_720p() if arguments.model else {"x": np.zeros(_SIZE, np.uint8)}
        timed = (timed_stages.__file__,)
        http = f"127.0.0.1:{free_port()}"
        doors = ("--http", http) if arguments.over == "http" else ()
        with (
            local_server(*served, *doors, *arguments.server, program=timed) as server,
            Client(server.address, timeout=60) as client,
        ):
            model = server.models[0]

            def run(jobs: int) -> object:
                if doors:
                    return asyncio.run(post(http, model, payload, jobs, in_flight))
                return client.infer_many(model, [payload] * jobs, in_flight=in_flight)

            for in_flight in map(int, arguments.in_flight.split(",")):
                show(f"{model}, {in_flight} in flight", measure(run, server, stages, arguments.jobs))


if __name__ == "__main__":
    main()
