"""A fleet on a real Ray cluster: needs parallel-infer[ray] in the Python that runs the tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow  # .venv/bin/python -m pytest -m slow tests/fleet/test_on_ray.py
@pytest.mark.timeout(900)
@pytest.mark.parametrize("cases", ["kill control", "rolling models missing fewer", "router registry"])
def test_no_job_is_lost_wrong_or_answered_twice(cases: str) -> None:
    pytest.importorskip("ray.serve", reason="ray is not installed: pip install parallel-infer[ray]")
    words = [sys.executable, ROOT / "benchmarks" / "fleet.py", *cases.split(), "--jobs", "2000"]
    found = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT, timeout=900)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "every invariant holds" in found.stdout
