"""Faults under load: processes of a real server are killed, stopped or hung, and every job is accounted for.

    python benchmarks/chaos.py [--jobs 100000] [--kill worker] [--signal kill|stop|gil|restart] [--every 0.2-2.0]
                               [--in-flight 64] [--faults 0] [--client library|wire|chain] [--bytes 4096] [--timeout 30]
                               [--fence on|off] [--cancel 0.0] [--provider cpu]

Each payload carries its own checksum through a model that returns it; each answer is compared byte for byte. `--client
wire` is a DEALER socket that counts every reply, `--client chain` asks a chain whose second model gives back what was
cut out of each job's own picture. `--signal restart` stops the whole server with SIGTERM and starts a new one on the
same address. `--fence off` is the negative control: it must be caught. Ends with 1 where an invariant is broken.

On a busy machine a process may take longer to start than faults of its kind are apart. How long at least one of each
kind was up at the same time is printed: jobs are lost where that was never long enough within their timeout.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.chaos_support.faults import KINDS, WORKERS, Fault, Saboteur
from benchmarks.chaos_support.loads import MODEL, ChainLoad, LibraryLoad, Load, Outcome, WireLoad, drive
from benchmarks.chaos_support.payloads import Payloads, write_identity_model
from benchmarks.chaos_support.restarts import Restarter, SuccessiveServers, successive_servers
from benchmarks.chaos_support.settle import drain
from benchmarks.chaos_support.tally import Tally
from benchmarks.chaos_support.tiles import Squares, write_models
from benchmarks.machine import print_header
from parallel_infer import Client
from parallel_infer.tools.local_server import LocalServer, local_server

INJECTED = Path(__file__).resolve().parent / "chaos_support" / "injected"
CLIENTS = ("library", "wire", "chain")
TARGETS = {"worker": WORKERS, "random": KINDS, **{kind: (kind,) for kind in KINDS}}
EXPLAINED = {  # errors that a client may get because of these faults
    Fault.KILL: frozenset({"POISON"}),
    Fault.RESTART: frozenset(),
    Fault.STOP: frozenset({"POISON", "DEADLINE_EXCEEDED"}),
    Fault.GIL: frozenset({"POISON", "DEADLINE_EXCEEDED"}),
}


def prepare(arguments: argparse.Namespace) -> None:
    """What the server's processes find in their environment."""
    os.environ["PARALLEL_INFER_RESTART_BUDGET"] = "1000000"
    os.environ["PARALLEL_INFER_LOG_LEVEL"] = arguments.log_level
    paths = (str(INJECTED), str(INJECTED.parents[2]), os.environ.get("PYTHONPATH", ""))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    os.environ["CHAOS_FENCE"] = arguments.fence
    if arguments.signal in ("stop", "gil"):
        os.environ["PARALLEL_INFER_STAGE_LIMIT_MS"] = str(arguments.stage_limit * 1000)
        os.environ["PARALLEL_INFER_START_TIMEOUT_MS"] = "10000"


def trouble(arguments: argparse.Namespace, server: LocalServer | SuccessiveServers) -> Saboteur | Restarter:
    """Who does the faults."""
    low, _, high = arguments.every.partition("-")
    every = float(low), float(high)
    most = arguments.faults or math.inf
    if isinstance(server, SuccessiveServers):
        return Restarter(server, every, arguments.seed, most)
    return Saboteur(server, TARGETS[arguments.kill], Fault(arguments.signal), every, arguments.seed, most)


def run(
    arguments: argparse.Namespace, server: LocalServer | SuccessiveServers
) -> tuple[Tally, Saboteur | Restarter, float]:
    """All jobs, while the saboteur is at work; then wait for every slot to be free."""
    chain = arguments.client == "chain"
    payloads, tally = Squares(arguments.seed) if chain else Payloads(arguments.bytes, arguments.seed), Tally()
    if arguments.client == "wire":
        load: Load = WireLoad(server.address, arguments.timeout)
    else:
        load = (ChainLoad if chain else LibraryLoad)(server.address, arguments.timeout, arguments.cancel)
    started = time.monotonic()
    with trouble(arguments, server) as saboteur:

        def ended(outcome: Outcome) -> None:
            if not outcome.code:
                saboteur.answered(outcome.sent)
            if sys.stderr.isatty() and not tally.answers % 1000:
                print(f"\r{tally.answers:,d} answers, {len(saboteur.incidents)} faults", end="", file=sys.stderr)

        def more() -> bool:
            return bool(tally.sent < arguments.jobs or len(saboteur.incidents) < arguments.faults)

        drive(load, payloads, tally, more, arguments.in_flight, ended)
        seconds = time.monotonic() - started
    load.close()
    tally.refused = load.refused
    tally.leaked = drain(server)
    return tally, saboteur, seconds


def restarts(server: LocalServer | SuccessiveServers) -> str:
    """How often each process was started again."""
    with Client(server.address, timeout=10.0) as client:
        processes = client.status()["processes"]
    return ", ".join(f"{name} {process['restarts']}" for name, process in processes.items())


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000, help="at least")
    parser.add_argument("--faults", type=int, default=0, help="so many, and jobs until then; 0: as jobs are sent")
    parser.add_argument("--kill", choices=sorted(TARGETS), default="worker")
    parser.add_argument("--signal", choices=[fault.value for fault in Fault], default="kill")
    parser.add_argument("--every", default="0.2-2.0", metavar="SECONDS-SECONDS")
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--client", choices=CLIENTS, default="library")
    parser.add_argument("--bytes", type=int, default=4096, help="of each payload")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds, of each job")
    parser.add_argument("--stage-limit", type=float, default=1.0, help="seconds, with --signal stop or gil")
    parser.add_argument("--fence", choices=("on", "off"), default="on", help="off: must be caught")
    parser.add_argument("--cancel", type=float, default=0.0, help="part of the jobs that is cancelled soon after")
    parser.add_argument("--max-batch-size", type=int, default=8, help="of the server; 1: few rows, soon used again")
    parser.add_argument("--provider", default="cpu", help="of the server")
    parser.add_argument("--log-level", default="error", help="of the server")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.signal == "gil" and not set(TARGETS[arguments.kill]) <= set(WORKERS):
        parser.error("--signal gil is for workers")
    if arguments.cancel and arguments.client == "wire":
        parser.error("--cancel is for --client library and chain")
    return arguments


def main() -> int:
    """Run and print; 1 where an invariant is broken."""
    arguments = parse()
    print_header()
    prepare(arguments)
    with tempfile.TemporaryDirectory(prefix="pi-chaos-") as folder:
        model = Path(folder) / "identity.onnx"
        write_identity_model(model, arguments.bytes)
        models = write_models(Path(folder)) if arguments.client == "chain" else ("--model", f"{MODEL}={model}")
        options = (*models, "--provider", arguments.provider, "--threads", "1")
        batch = ("--max-batch-size", str(arguments.max_batch_size))
        workers = ("--decode-workers", "2", "--postprocess-workers", "2", "--instances", "2")
        started = successive_servers if arguments.signal == "restart" else local_server
        with started(*options, *batch, *workers) as server:
            tally, saboteur, seconds = run(arguments, server)
            print("\n".join(tally.lines()))
            print(f"\n{len(saboteur.incidents)} faults in {seconds:.0f} s; "
                  f"{saboteur.superseded} processes were hurt again before they were back")  # fmt: skip
            print("\n".join(saboteur.lines()))
            print(f"restarts: {restarts(server)}\n")
    cancelled = {"DROPPED"} if arguments.cancel else set()
    broken = tally.broken(EXPLAINED[Fault(arguments.signal)] | cancelled)
    print("\n".join(f"BROKEN: {text}" for text in broken) or "every invariant holds")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
