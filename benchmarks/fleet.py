"""A fleet on Ray under load: machines die, hang, come and go, and every job is accounted for.

    python benchmarks/fleet.py [CASE...] [--jobs 5000] [--in-flight 24] [--runs 1] [--client wire|library]
                               [--keep FOLDER]

Needs parallel-infer[ray] and psutil in the Python that runs it. Machines are Ray's processes on 127.0.1.1 and further
addresses of this one; run by root they are in a network namespace of their own, and so are no other's ports in the way.
Each has a server of one worker a stage, with a model that returns what it was sent. Each payload carries its number and
a checksum, so that an answer that belongs to another job is seen.

Cases: kill stop server router registry rolling models missing fewer scaled control; without any, all of them. `control`
is `kill` with a router that sends nothing again: it must lose at least one. Ends with 1 where an invariant is broken.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.chaos_support.loads import LibraryLoad, Load, Outcome, WireLoad, drive
from benchmarks.chaos_support.payloads import Payloads, write_identity_model
from benchmarks.chaos_support.tally import Tally
from benchmarks.fleet_support.cases import CASES, FleetUnderTest
from benchmarks.fleet_support.raylets import cluster
from parallel_infer.process.rundir import sweep_directories
from parallel_infer.shm.segment import sweep

_BYTES = 100  # of a payload
_TIMEOUT = 30.0  # seconds of a job
_AROUND = 2.0  # seconds of load before and after what is done
_INSIDE = "FLEET_IN_NAMESPACE"


@dataclass
class Run:
    """One case."""

    tally: Tally = field(default_factory=Tally)
    slowest: float = 0.0  # seconds
    took: float = 0.0  # seconds that the fleet needed until it was whole
    rates: Counter[int] = field(default_factory=Counter)  # answers in each second

    def ended(self, outcome: Outcome) -> None:
        """Note how long a job took."""
        now = time.monotonic()
        self.slowest = max(self.slowest, now - outcome.sent)
        self.rates[int(now)] += 1

    def line(self, name: str) -> str:
        """The counts."""
        rates = [self.rates[second] for second in range(min(self.rates), max(self.rates) + 1)][1:-1]
        usual = sorted(rates)[len(rates) // 2] if rates else 0
        tally = self.tally
        lost = tally.lost + tally.errors.total()
        return (
            f"{name:9} {tally.sent:8,d} jobs  {lost:3d} lost  {tally.crossed} wrong  {tally.twice} twice  "
            f"slowest {self.slowest:5.2f} s  whole after {self.took:5.1f} s  "
            f"{usual:6,d}/s, least in a second {min(rates, default=0):6,d}"
            + (f"  ({', '.join(f'{code} {count}' for code, count in tally.errors.items())})" if tally.errors else "")
        )


def run(name: str, fleet: FleetUnderTest, arguments: argparse.Namespace) -> Run:
    """A case under load."""
    address = f"tcp://127.0.1.1:{fleet.port}"
    load: Load = WireLoad(address, _TIMEOUT) if arguments.client == "wire" else LibraryLoad(address, _TIMEOUT)
    found = Run()

    def more() -> bool:
        if fleet.calm.is_set():  # one job after the other, with pauses
            tally = found.tally
            if tally.sent > tally.answers + tally.errors.total() + tally.lost:
                return False
            time.sleep(0.02)
        return found.tally.sent < arguments.jobs or not done.is_set()

    with contextlib.closing(load), beside(partial(CASES[name], fleet), found) as done:
        drive(load, Payloads(_BYTES), found.tally, more, arguments.in_flight, found.ended)
    return found


@contextlib.contextmanager
def beside(act: Callable[[], object], found: Run) -> Iterator[threading.Event]:
    """Have something done beside a load, which goes on before and after; the event says when it is over.

    Notes in `found` how long it took. At the end raises what it raised.
    """
    done = threading.Event()
    failures: list[BaseException] = []

    def timed() -> None:
        time.sleep(_AROUND)
        started = time.monotonic()
        try:
            act()
        except BaseException as error:  # told where the load ends
            failures.append(error)
        found.took = time.monotonic() - started
        time.sleep(_AROUND)
        done.set()

    actor = threading.Thread(target=timed)
    actor.start()
    yield done
    actor.join()
    if failures:
        raise failures[0]


def broken(name: str, found: Run) -> list[str]:
    """What is not as it must be."""
    if name == "control":
        lost = found.tally.lost + found.tally.errors.total()
        return [] if lost else ["the control has lost nothing: this load shows nothing"]
    return found.tally.broken(frozenset())


def in_namespace() -> int | None:
    """Run the whole in a network namespace; None where that cannot be, or where this is it."""
    tools = all(map(shutil.which, ("unshare", "ip", "sh")))
    if os.environ.get(_INSIDE) or os.getuid() or not tools:
        return None
    script = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, *sys.argv]
    command = ["unshare", "--net", "--", *script]
    return subprocess.run(command, env={**os.environ, _INSIDE: "1"}, check=False).returncode


def folder(kept: str | None) -> contextlib.AbstractContextManager[str]:
    """Where models, configuration and Ray's logs lie: a short path, since Ray has sockets there."""
    if kept is None:
        return tempfile.TemporaryDirectory(prefix="pi-fleet-", dir="/tmp")
    Path(kept).mkdir()
    return contextlib.nullcontext(kept)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--jobs", type=int, default=5000, help="of each case, at least")
    parser.add_argument("--in-flight", type=int, default=24)
    parser.add_argument("--runs", type=int, default=1, help="how often each case is run")
    parser.add_argument("--client", choices=("wire", "library"), default="wire")
    parser.add_argument("--keep", metavar="FOLDER", help="leave logs there: a folder that is made, with a short path")
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"no case is called {', '.join(sorted(unknown))}")
    return arguments


def main() -> int:
    """Run and print; 1 where an invariant is broken."""
    arguments = parse()
    if importlib.util.find_spec("ray") is None:
        raise SystemExit("ray is not installed in this Python: pip install 'parallel-infer[ray]'")
    if (code := in_namespace()) is not None:
        return code
    wrong = []
    with folder(arguments.keep) as name, cluster(Path(name), 3) as machines:
        model = Path(name) / "identity.onnx"
        write_identity_model(model, _BYTES)
        fleet = FleetUnderTest(machines, Path(name) / "fleet.toml", model, 5577)
        for case in [case for case in arguments.cases or CASES for _ in range(arguments.runs)]:
            fleet.most_lost = 1 if case == "control" else 3
            fleet.deploy()
            fleet.wait_for(3)
            found = run(case, fleet, arguments)
            print(found.line(case), flush=True)
            wrong += [f"{case}: {text}" for text in broken(case, found)]
    sweep()  # what killed servers left in /dev/shm, as the next server on a machine does
    sweep_directories()
    print("\n".join(f"BROKEN: {text}" for text in wrong) or "every invariant holds")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
