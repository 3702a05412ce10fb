"""What every benchmark says first: the machine, the versions, and the command that made the figures."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from parallel_infer.tools.bench.machine import Origin, installed, processor

__all__ = ["print_header", "processor", "versions"]

versions = installed


def print_header() -> None:
    """Print machine, versions and command."""
    command = f"python benchmarks/{Path(sys.argv[0]).name} {shlex.join(sys.argv[1:])}".rstrip()
    print(*Origin.here(command).lines(), "", sep="\n")
