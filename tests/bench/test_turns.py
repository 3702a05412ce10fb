"""Two checkouts in turns: which figures of their outputs belong together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.turns import compared, figures, scripts_of

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "turns.py"


def test_numbers_are_found_by_the_text_around_them():
    assert figures("one fan   65.3 pictures/s   p50  1,234.5 ms\nno numbers, p99\n") == {
        "one fan # pictures/s p50 # ms": [65.3, 1234.5]
    }


def test_a_line_that_comes_again_is_a_line_of_its_own():
    assert figures("3 ms\n4 ms\n") == {"# ms": [3.0], "# ms [2]": [4.0]}


def test_medians_of_lines_that_all_print_are_compared():
    other = [figures(f"rate {rate}/s of 8\nonly there 1\n") for rate in (100, 90, 110)]
    this = [figures(f"only here 1\nrate {rate}/s of 8\n") for rate in (120, 999, 1)]
    assert compared(other, this) == ["rate #/s of #", "    100 -> 120 (1.20)   8 -> 8 (1.00)"]


def test_outputs_without_a_common_line_are_refused():
    with pytest.raises(ValueError, match="every output"):
        compared([figures("a 1")], [figures("b 1")])


def test_a_checkout_without_an_environment_is_refused_by_name(tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path, "--", "benchmarks/waits.py"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert f"there is no {tmp_path}/.venv/bin/python" in done.stderr


def test_several_scripts_are_told_from_a_script_whose_own_options_have_dashes():
    words = ["--", "a.py", "--rounds", "2", "--", "b.py", "--jobs", "8", "--", "--instances", "2", "--", "c.py"]
    assert scripts_of(words) == [["a.py", "--rounds", "2"], ["b.py", "--jobs", "8", "--", "--instances", "2"], ["c.py"]]


@pytest.mark.parametrize("words", [(), ("--",), ("--", "--", "a.py")])
def test_no_script_is_refused(tmp_path, words):
    done = subprocess.run([sys.executable, SCRIPT, tmp_path, *words], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no script" in done.stderr


def test_two_scripts_are_run_in_turns_and_compared_each(tmp_path):
    for checkout, first in (("other", 2), ("this", 3)):
        python = tmp_path / checkout / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.symlink_to(sys.executable)
        (tmp_path / checkout / "benchmarks").mkdir()
        (tmp_path / checkout / "one.py").write_text(f"print('one takes {first} ms')")
        (tmp_path / checkout / "two.py").write_text("import sys; print('two got', len(sys.argv) - 1)")
    copy = tmp_path / "this" / "benchmarks" / "turns.py"
    copy.write_text(SCRIPT.read_text())
    command = [sys.executable, copy, tmp_path / "other", "--rounds", "1", "--", "one.py", "--", "two.py", "--", "-x"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    told = done.stdout.splitlines()
    assert told[1:3] == ["one takes # ms", "    2 -> 3 (1.50)"]
    assert told[4:] == ["two got #", "    2 -> 2 (1.00)"]
