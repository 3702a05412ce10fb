"""The steps of docs/architecture.md for a message of one's own, walked in a copy of the packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.copied import ROOT, blocks, copy_packages

PROGRAM = """
import logging, msgspec
logging.basicConfig(level=logging.INFO, format="%(message)s")
from parallel_infer.ipc.messages import Busy, FromChild
from tests.supervisor.core_rig import Rig

message = msgspec.msgpack.decode(msgspec.msgpack.encode(Busy("too many pictures")), type=FromChild)
Rig().serving().say("decode-0", message)
"""


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(folder), str(ROOT)])
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the packages in which the message is declared, and nobody knows it yet."""
    copy_packages(tmp_path)
    declaration, _ = blocks("Add a message", "architecture.md")
    messages = tmp_path / "parallel_infer" / "ipc" / "messages.py"
    text = messages.read_text()
    for before, after in (
        ("class Started(", f"{declaration}\n\nclass Started("),
        ("FromChild = ", "FromChild = Busy | "),
    ):
        assert text.count(before) == 1
        text = text.replace(before, after)
    messages.write_text(text)
    return tmp_path


def handle(copy: Path) -> Path:
    """Write the case of the page; the file that it is in."""
    _, case = blocks("Add a message", "architecture.md")
    core = copy / "parallel_infer" / "supervisor" / "core.py"
    text = core.read_text()
    for before, after in (
        ("            case Probed():", f"{case}            case Probed():"),
        ("    Alive,", "    Alive,\n    Busy,"),
    ):
        assert text.count(before) == 1
        text = text.replace(before, after)
    core.write_text(text)
    return core


def test_a_message_of_ones_own_is_a_struct_and_a_case(copy: Path) -> None:
    handle(copy)

    ran = run(copy, "-c", PROGRAM)

    assert ran.returncode == 0, ran.stderr
    assert "decode-0 is busy: too many pictures" in ran.stderr


@pytest.mark.slow  # mypy reads everything from the beginning
@pytest.mark.timeout(600)
def test_mypy_names_the_place_that_does_not_know_it(copy: Path) -> None:
    check = ("-m", "mypy", "--strict", "--cache-dir", str(copy / "cache"), "parallel_infer/supervisor/core.py")

    missing = run(copy, *check)
    handle(copy)
    known = run(copy, *check)

    assert "core.py" in missing.stdout
    assert '"Busy"; expected "Never"' in missing.stdout
    assert '"Busy"' not in known.stdout
