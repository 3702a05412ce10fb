"""What benchmarks share: what each says first (machine, versions, the command that made its figures); free ports."""

from __future__ import annotations

import shlex
import socket
import sys
from pathlib import Path

from parallel_infer.tools.bench.machine import Origin, installed, processor

__all__ = ["free_port", "print_header", "processor", "versions"]

versions = installed


def free_port() -> int:
    """A TCP port that nobody listens at now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def print_header() -> None:
    """Print machine, versions and command."""
    script = Path(sys.argv[0]).resolve()
    place = script.parts[script.parts.index("benchmarks") :] if "benchmarks" in script.parts else (script.name,)
    command = f"python {'/'.join(place)} {shlex.join(sys.argv[1:])}".rstrip()
    print(*Origin.here(command).lines(), "", sep="\n")
