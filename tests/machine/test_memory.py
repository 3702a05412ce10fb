"""How much memory may be taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from parallel_infer.machine.memory import available_memory


def test_what_the_machine_says(tmp_path: Path) -> None:
    file = tmp_path / "meminfo"
    file.write_text("MemTotal:       4000 kB\nMemAvailable:   3000 kB\n")
    assert available_memory(file) == 3000 << 10


@pytest.mark.parametrize("text", [None, "", "MemAvailable: much\n", "MemAvailable:\n"])
def test_a_machine_that_does_not_say_has_no_less_than_the_others(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "meminfo"
    if text is not None:
        file.write_text(text)
    assert available_memory(file) >= available_memory()
