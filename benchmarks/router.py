"""What a router costs, and what it loses when those around it die.

    python benchmarks/router.py null [--seconds 5] [--rounds 3]      jobs/s and latency against one gateway
    python benchmarks/router.py sleeping [--seconds 5]               1 to 4 members that sleep 80 ms for 8 jobs
    python benchmarks/router.py pictures [--seconds 5] [--rounds 3]  720p over HTTP, with a router and without
    python benchmarks/router.py spread                               processor time for a job with 1 to 1000 members
    python benchmarks/router.py faults [CASE...] [--jobs 5000]       members and router killed, stopped and replaced

Cases of `faults`: kill stop router rolling fewer control. `control` is `kill` with a router that sends nothing again:
it must lose at least one job. Each payload carries its number and a checksum, so that an answer that belongs to another
job is seen. Ends with 1 where an invariant is broken. Everything runs on this machine: rates are those of its cores.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.chaos_support.loads import LibraryLoad, Load, WireLoad, drive
from benchmarks.chaos_support.payloads import Payloads, write_identity_model
from benchmarks.fleet import Run, beside, broken
from benchmarks.machine import print_header
from benchmarks.nothing_model import write_nothing_model
from benchmarks.overhead import latencies, throughput
from benchmarks.router_support.cases import CASES
from benchmarks.router_support.pictures import rates_of_pictures
from benchmarks.router_support.processes import RouterUnderTest, closing, echo, server
from benchmarks.router_support.spread import microseconds_per_job
from parallel_infer import Client

_BYTES = 100  # of a payload
_TIMEOUT = 30.0  # seconds of a job
_SLEEP, _BATCH, _EACH = 0.08, 8, 24  # of a member that sleeps: seconds, jobs at a time, and jobs in flight
_NULL = f"nothing-{_BYTES}"


def null(folder: Path, arguments: argparse.Namespace) -> int:
    """Jobs that compute nothing, straight to a gateway and through a router, in turn."""
    path = folder / "nothing.onnx"
    write_nothing_model(path, _BYTES)
    member = server(_NULL, path)
    with closing([member]):
        router = RouterUnderTest(folder, [member])
        with closing([router]), Client(member.address) as straight, Client(router.address) as routed:
            router.wait_for(1)
            rates, times = [], []
            for _ in range(arguments.rounds):
                rates.append([throughput(client, _BYTES, 64, arguments.seconds) for client in (straight, routed)])
                times.append([latencies(client, _BYTES, 1000)[500] * 1000 for client in (straight, routed)])
    print(f"{'':12} {'64 in flight':>14} {'1 in flight':>14}")
    for number, name in enumerate(("gateway", "router")):
        rate, seconds = (statistics.median(row[number] for row in rows) for rows in (rates, times))
        print(f"{name:12} {rate:10,.0f}/s {seconds:11.2f} ms")
    ratio = statistics.median(row[1] / row[0] for row in rates)
    more = statistics.median(row[1] - row[0] for row in times)
    print(f"router/gateway {ratio:.2f} (at least 0.75); {more:.2f} ms more (at most 0.30)")
    return 0


def sleeping(folder: Path, arguments: argparse.Namespace) -> int:
    """Members that sleep share the work: n of them do n times as much."""
    found = []
    for count in range(1, 5):
        with closing([echo(folder, number, _SLEEP, _BATCH, _NULL) for number in range(count)]) as members:
            router = RouterUnderTest(folder, members)
            with closing([router]), Client(router.address) as client:
                router.wait_for(count)
                found.append(throughput(client, _BYTES, _EACH * count, arguments.seconds))
        print(f"{count} members: {found[-1]:6.0f} jobs/s, {found[-1] / found[0]:.2f} times", flush=True)
    return 0


def pictures(folder: Path, arguments: argparse.Namespace) -> int:
    """The HTTP door of a server, and that of a router in front of the same server."""
    straight, routed = rates_of_pictures(folder, arguments.seconds, arguments.rounds)
    print(f"server {straight:.1f} pictures/s, router {routed:.1f}, ratio {routed / straight:.2f} (at least 0.9)")
    return 0


def spread(folder: Path, arguments: argparse.Namespace) -> int:
    """What the core takes to choose, keep, send and reply, without sockets."""
    for count in (1, 10, 100, 1000):
        print(f"{count:5d} members: {microseconds_per_job(count):6.1f} us of processor time a job", flush=True)
    return 0


def faults(folder: Path, arguments: argparse.Namespace) -> int:
    """Every case under load."""
    model = folder / "identity.onnx"
    write_identity_model(model, _BYTES)
    wrong = []
    with closing([server("identity", model) for _ in range(arguments.members)]) as members:
        for case in [case for case in arguments.cases or CASES for _ in range(arguments.runs)]:
            router = RouterUnderTest(folder, members, "--most-lost", "1" if case == "control" else "3")
            with closing([router]):
                router.wait_for(len(members))
                found = under_load(case, router, arguments)
            print(found.line(case), flush=True)
            wrong += [f"{case}: {text}" for text in broken(case, found)]
    print("\n".join(f"BROKEN: {text}" for text in wrong) or "every invariant holds")
    return 1 if wrong else 0


def under_load(case: str, router: RouterUnderTest, arguments: argparse.Namespace) -> Run:
    """A case, with jobs under way from before it begins until after it is over."""
    wire = arguments.client == "wire"
    load: Load = WireLoad(router.address, _TIMEOUT) if wire else LibraryLoad(router.address, _TIMEOUT)
    found = Run()
    with contextlib.closing(load), beside(partial(CASES[case], router), found) as done:
        more = lambda: found.tally.sent < arguments.jobs or not done.is_set()  # noqa: E731 - too short for a name
        drive(load, Payloads(_BYTES), found.tally, more, arguments.in_flight, found.ended)
    return found


WHAT = {"null": null, "sleeping": sleeping, "pictures": pictures, "spread": spread, "faults": faults}


def main() -> int:
    """Run and print; 1 where an invariant is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="of faults; none: all of them")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="of measurements that alternate")
    parser.add_argument("--jobs", type=int, default=5000, help="of each case, at least")
    parser.add_argument("--in-flight", type=int, default=24)
    parser.add_argument("--members", type=int, default=3, help="of faults")
    parser.add_argument("--runs", type=int, default=1, help="how often each case is run")
    parser.add_argument("--client", choices=("wire", "library"), default="library")
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"no case is called {', '.join(sorted(unknown))}")
    print_header()
    with tempfile.TemporaryDirectory(prefix="pi-router-", dir="/tmp") as folder:
        return WHAT[arguments.what](Path(folder), arguments)


if __name__ == "__main__":
    sys.exit(main())
