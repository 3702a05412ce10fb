"""Commands as users start them, in surroundings that are not what they should be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def run(
    *arguments: str | Path | bytes, environment: Mapping[str, str | None] | None = None, **more: Any
) -> subprocess.CompletedProcess[bytes]:
    """A command in a process of its own; a variable that is None is not set there."""
    given = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    command: list[Any] = [sys.executable, "-m", "parallel_infer", *arguments]
    streams = {} if "stdout" in more else {"stdout": subprocess.PIPE}
    return subprocess.run(
        command,
        check=False,
        stderr=subprocess.PIPE,
        env={name: text for name, text in given.items() if text is not None},
        **streams,
        **more,
    )


def one_line(ran: subprocess.CompletedProcess[bytes], text: str, code: int = 1) -> None:
    """It ended with this exit code and said why in one line of text."""
    said = ran.stderr.decode(errors="replace")
    assert ran.returncode == code, said
    assert len(said.splitlines()) == 1, said
    assert text in said, said
