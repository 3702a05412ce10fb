"""The command `parallel-infer bench` as a script of a checkout: python benchmarks/bench.py --help."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from parallel_infer.cli.bench import command

if __name__ == "__main__":
    command()
