"""A worker hangs: when has its client a reply, and when is the process gone? Both counted from the job's deadline.

    python benchmarks/hangs.py [--rounds 20] [--timeout 0.5]

The only worker of a stage is stopped (SIGSTOP), or made to spin while it holds the interpreter's lock; then one job is
sent with a deadline. Prints milliseconds after that deadline, per stage and kind.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.chaos_support.faults import HANG, processes
from benchmarks.chaos_support.payloads import Bytes, Payloads, write_identity_model
from benchmarks.machine import print_header
from parallel_infer import Client
from parallel_infer.tools.local_server import LocalServer, local_server

SIZE = 4096
INJECTED = Path(__file__).resolve().parent / "chaos_support" / "injected"
PLACES = {"decode": "decode-0", "infer": "infer-identity-0", "postprocess": "postprocess-0"}
KINDS = {"SIGSTOP": signal.SIGSTOP, "busy loop": HANG}


@contextmanager
def started_server() -> Iterator[LocalServer]:
    """A server with one worker per stage, whose processes hang at SIGUSR1."""
    os.environ |= {"PARALLEL_INFER_RESTART_BUDGET": "100000", "PYTHONPATH": str(INJECTED)}
    with tempfile.TemporaryDirectory(prefix="pi-hangs-") as folder:
        model = Path(folder) / "identity.onnx"
        write_identity_model(model, SIZE)
        options = ["--model", f"identity={model}", "--provider", "cpu", "--log-level", "error", "--instances", "1"]
        with local_server(*options, "--decode-workers", "1", "--postprocess-workers", "1") as server:
            yield server


def hang(
    server: LocalServer,
    client: Client,
    payload: dict[str, Bytes],
    place: str,
    kind: int,
    timeout: float,
) -> tuple[float, float]:
    """Seconds from the deadline of a job to its reply, and to the end of the process that hangs."""
    victim = processes(server)[place]
    handle = os.pidfd_open(victim)
    try:
        os.kill(victim, kind)
        deadline = time.monotonic() + timeout
        client.submit("identity", payload, timeout=timeout).exception(60)
        replied = time.monotonic() - deadline
        select.select([handle], [], [], 60)
        return replied, time.monotonic() - deadline
    finally:
        os.close(handle)


def settle(client: Client, payload: dict[str, Bytes]) -> None:
    """Wait until every process is up and has worked."""
    while any(process["state"] != "up" for process in client.status()["processes"].values()):
        time.sleep(0.05)
    for _ in range(20):
        client.infer("identity", payload)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="per stage and kind")
    parser.add_argument("--timeout", type=float, default=0.5, help="seconds a job has")
    arguments = parser.parse_args()
    print_header()
    payload: dict[str, Bytes] = {"x": Payloads(SIZE).make(1)}
    print(f"{'stage':12s} {'how':10s} {'reply p50':>10s} {'max':>7s} {'gone p50':>10s} {'max':>7s}   in ms")
    with started_server() as server, Client(server.address, timeout=60.0) as client:
        for stage, place in PLACES.items():
            for name, kind in KINDS.items():
                found = []
                for _ in range(arguments.rounds):
                    settle(client, payload)
                    found.append(hang(server, client, payload, place, kind, arguments.timeout))
                replied, gone = ([seconds * 1000 for seconds in column] for column in zip(*found, strict=True))
                print(
                    f"{stage:12s} {name:10s} {statistics.median(replied):10.0f} {max(replied):7.0f} "
                    f"{statistics.median(gone):10.0f} {max(gone):7.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
