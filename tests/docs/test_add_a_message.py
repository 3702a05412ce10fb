"""The steps of docs/architecture.md for a message of one's own, walked in a copy of the packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.copied import blocks, copy_packages, replace, run

PROGRAM = """
import logging, msgspec
logging.basicConfig(level=logging.INFO, format="%(message)s")
from parallel_infer.ipc.messages import Busy, FromChild
from tests.supervisor.core_rig import Rig

message = msgspec.msgpack.decode(msgspec.msgpack.encode(Busy("too many pictures")), type=FromChild)
Rig().serving().say("decode-0", message)
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the packages in which the message is declared, and nobody knows it yet."""
    copy_packages(tmp_path)
    declaration, _ = blocks("Add a message", "architecture.md")
    messages = tmp_path / "parallel_infer" / "ipc" / "messages"
    replace(messages / "processes.py", ("class Started(", f"{declaration}\n\nclass Started("))
    replace(messages / "receivers.py", ("FromChild = ", "FromChild = processes.Busy | "))
    return tmp_path


def handle(copy: Path) -> Path:
    """Write the case of the page; the file that it is in."""
    _, case = blocks("Add a message", "architecture.md")
    core = copy / "parallel_infer" / "supervisor" / "core.py"
    replace(
        core,
        ("            case Probed():", f"{case}            case Probed():"),
        ("    Alive,", "    Alive,\n    Busy,"),
    )
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

    missing = run(copy, *check, timeout=300)
    handle(copy)
    known = run(copy, *check, timeout=300)

    assert "core.py" in missing.stdout
    assert '"Busy"; expected "Never"' in missing.stdout
    assert '"Busy"' not in known.stdout
