"""The benchmark of faults as a test: servers and the router killed, stopped and replaced, thousands of jobs each."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_nothing_is_lost_and_the_control_loses_something() -> None:
    command = [sys.executable, "benchmarks/router.py", "faults", "--jobs", "5000", "--client", "wire"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "every invariant holds" in ran.stdout
