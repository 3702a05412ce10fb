"""What a server takes: time from `serve` to `ready`, memory of each process, processor time while idle.

python benchmarks/footprint.py [--idle 20] [--model NAME=PATH]...
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import print_header
from parallel_infer import Client
from parallel_infer.tools.local_server import LocalServer, local_server

PICTURES = Path(__file__).resolve().parents[1] / "parallel_infer" / "zoo" / "pictures"


def memory(process: int) -> tuple[int, int]:
    """PSS and, of it, shared memory, in bytes."""
    text = Path(f"/proc/{process}/smaps_rollup").read_text()
    found = {key: int(value) * 1024 for key, value in re.findall(r"(\w+):\s+(\d+) kB", text)}
    return found["Pss"], found.get("Pss_Shmem", 0)


def processor_time(process: int) -> float:
    """Seconds of processor time so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def title(process: int) -> str:
    """What `ps` shows."""
    return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ").strip()


def report(server: LocalServer, idle: float) -> None:
    """Print the figures of a running server."""
    processes = server.processes()
    print(f"from serve to ready: {server.seconds_to_ready:.2f} s\n")
    before = {process: processor_time(process) for process in processes}
    started = time.monotonic()
    time.sleep(idle)  # what is measured is that nothing happens
    spent = time.monotonic() - started
    print(f"{'process':36s} {'PSS MB':>8s} {'of it rings':>12s} {'idle CPU %':>11s}")
    for process in processes:
        pss, shared = memory(process)
        share = (processor_time(process) - before[process]) / spent * 100
        name = title(process)
        name = "resource tracker of Python" if "resource_tracker" in name else name
        print(f"{name:36s} {pss / 2**20:8.1f} {shared / 2**20:12.1f} {share:11.2f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--idle", type=float, default=20.0, help="seconds to watch the idle server")
    parser.add_argument("--model", action="append", default=[], metavar="NAME=PATH")
    arguments = parser.parse_args()
    print_header()
    options = [word for model in arguments.model or ["detector=zoo:detector"] for word in ("--model", model)]
    with local_server(*options) as server, Client(server.address, timeout=30) as client:
        for name in server.models:
            client.infer(name, (PICTURES / "coffee.png").read_bytes())
        report(server, arguments.idle)


if __name__ == "__main__":
    main()
