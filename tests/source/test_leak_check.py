"""The check of conftest.py for what a test leaves behind must itself be able to fail."""

from pathlib import Path

import pytest

from parallel_infer.shm.segment import RunMark

LEAKING = """
import subprocess, sys, time
from multiprocessing import get_context
from pathlib import Path

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
kept = []  # so that no destructor ends what was left


def test_segment():
    Path("/dev/shm/pinfer-{run}-left").touch()


def test_child():
    kept.append(subprocess.Popen(SLEEP))


def test_orphan():
    parent = "import subprocess, sys; subprocess.Popen(sys.argv[1:])"
    subprocess.run([sys.executable, "-c", parent, *SLEEP], check=True)


def test_clean():
    path = Path("/dev/shm/pinfer-{run}-removed")
    path.touch()
    process = get_context("spawn").Process(target=time.sleep, args=(0,))
    process.start()
    process.join()
    path.unlink()
"""


def test_segments_children_and_orphans_are_found(pytester: pytest.Pytester) -> None:
    mark = RunMark()  # of a living run, or any server that starts meanwhile would sweep the segment
    conftest = (Path(__file__).parents[1] / "conftest.py").read_text()
    pytester.makeconftest(conftest.replace("GRACE = 2.0", "GRACE = 0.3"))
    pytester.makepyfile(LEAKING.replace("{run}", mark.run))
    try:
        result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    finally:
        mark.remove()

    result.assert_outcomes(passed=4, errors=3)
    for name in ("segment", "child", "orphan"):
        result.stdout.fnmatch_lines([f"*ERROR at teardown of test_{name}*"])
