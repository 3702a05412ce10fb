"""Whose work the cores do."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from parallel_infer.machine.occupation import Moment, moment, taken_by_others

HERTZ = os.sysconf("SC_CLK_TCK")


def test_idle_and_waiting_cores_are_not_busy_and_stolen_ones_are(tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    ticks = [HERTZ * seconds for seconds in (1, 2, 3, 40, 50, 4, 5, 6, 7, 8)]
    numbers = " ".join(map(str, ticks))
    file = tmp_path / "stat"
    file.write_text(f"cpu  {numbers}\ncpu{core} {numbers}\ncpu99999 {numbers}\nintr 5 6\nctxt 7\n")
    found = moment(file)
    assert (found.busy, found.total) == (21, 111)


def test_a_machine_that_does_not_say(tmp_path: Path) -> None:
    assert moment(tmp_path / "none") == Moment()
    assert taken_by_others(Moment(), Moment(), 2, 2) == 0


def test_our_own_work_is_told_from_that_of_others() -> None:
    before = moment()
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert moment().ours - before.ours >= 0.1


@pytest.mark.parametrize(
    ("busy", "ours", "cores", "all_cores", "part"),
    [
        (15.0, 15.0, 2, 2, 0.0),  # all of it was ours
        (20.0, 15.0, 2, 2, 0.25),  # 5 of 20 seconds of two cores, which is half a core
        (20.0, 0.0, 2, 2, 1.0),
        (10.0, 12.0, 2, 2, 0.0),  # ticks are coarse
        (5.0, 0.0, 2, 4, 0.0),  # one of four cores is busy, two are ours
        (15.0, 0.0, 2, 4, 0.5),  # three are
    ],
)
def test_what_others_took(busy: float, ours: float, cores: int, all_cores: int, part: float) -> None:
    before, after = Moment(100.0, 200.0, 7.0), Moment(100.0 + busy, 220.0, 7.0 + ours)
    assert taken_by_others(before, after, cores, all_cores) == pytest.approx(part)
