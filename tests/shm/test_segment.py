"""Segments in the real /dev/shm: reserved, private, owned by their run, and swept only when that run is dead."""

from __future__ import annotations

import errno
import fcntl
import gc
import multiprocessing
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from parallel_infer.errors import ConfigError
from parallel_infer.shm import segment
from parallel_infer.shm.segment import RunMark, Segment, alive, dead_runs, exists, sweep

SHM = Path("/dev/shm")


@pytest.fixture
def mark() -> Iterator[RunMark]:
    """A living run, so that no server that starts meanwhile sweeps what a test makes."""
    mark = RunMark()
    yield mark
    mark.remove()


def descriptors() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def test_creation_reserves_every_page_for_this_user_alone(mark):
    size = 3 * 2**20 + 5000
    made = Segment.create(mark.segment_name("a"), size)
    status = (SHM / made.name).stat()
    assert status.st_mode & 0o777 == 0o600
    assert status.st_size == size
    assert status.st_blocks * 512 >= size
    made.close()
    made.unlink()
    assert not exists(made.name)


def test_too_little_memory_is_an_error_that_says_what_to_do_and_leaves_nothing(mark, monkeypatch):
    """And it takes nothing before it says so: the kernel would kill somebody where memory is short."""
    monkeypatch.setattr(os, "posix_fallocate", lambda *arguments: pytest.fail("memory was asked for"))
    name = mark.segment_name("huge")
    free = shutil.disk_usage(SHM).free
    before = descriptors()
    with pytest.raises(ConfigError, match=r"not enough shared memory: .* MB more .*--shm-size") as caught:
        Segment.create(name, free + (1 << 30))
    assert "shared_memory_mb" in str(caught.value)
    assert not exists(name)
    assert shutil.disk_usage(SHM).free > free // 2
    del caught
    assert descriptors() <= before


def test_memory_that_others_take_first_is_the_same_error(mark, monkeypatch):
    def full(*arguments: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    name = mark.segment_name("late")
    with pytest.raises(ConfigError, match=r"not enough shared memory: .*--shm-size"):
        Segment.create(name, 4096)
    assert not exists(name)


def test_what_one_writes_the_other_reads(mark):
    made = Segment.create(mark.segment_name("a"), 4096)
    other = Segment.attach(made.name)
    made.view("int64", (4, 8), 256)[2, 3] = -7
    assert other.view("int64", (4, 8), 256)[2, 3] == -7
    other.close()
    made.close()
    made.unlink()


def test_a_view_outside_the_segment_is_refused(mark):
    made = Segment.create(mark.segment_name("a"), 4096)
    with pytest.raises(ValueError):
        made.view("uint8", (4097,))
    with pytest.raises(ValueError):
        made.view("uint8", (1,), 4096)
    made.close()
    made.unlink()


def test_views_survive_the_end_of_their_segment(mark):
    made = Segment.create(mark.segment_name("a"), 4096)
    view = made.view("uint8", (4096,))
    view[:] = 42
    made.close()
    made.unlink()
    del made
    gc.collect()
    assert view.sum() == 42 * 4096
    view[0] = 1


def test_a_segment_that_was_closed_under_a_view_leaks_no_descriptor(mark):
    before = descriptors()
    made = Segment.create(mark.segment_name("a"), 4096)
    view = made.view("uint8", (4096,))
    made.close()
    made.unlink()
    del made
    assert view[0] == 0
    del view
    assert descriptors() == before


def test_mapping_and_unmapping_leaks_no_descriptor(mark):
    made = Segment.create(mark.segment_name("a"), 4096)
    before = descriptors()
    for _ in range(20):
        other = Segment.attach(made.name)
        assert other.view("uint8", (4096,))[0] == 0
        other.close()
        del other
    assert descriptors() == before
    made.close()
    made.unlink()


ATTACH = """
import sys
from parallel_infer.shm.segment import Segment
segment = Segment.attach(sys.argv[1])
view = segment.view("uint8", (1,))
assert view[0] == 9
view[0] = 10
"""


def test_an_unrelated_process_that_attaches_and_exits_unlinks_nothing(mark):
    made = Segment.create(mark.segment_name("a"), 4096)
    view = made.view("uint8", (1,))
    view[0] = 9
    ended = subprocess.run([sys.executable, "-c", ATTACH, made.name], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert exists(made.name)
    assert view[0] == 10
    del view
    made.close()
    made.unlink()


def _attach_and_end(name: str) -> None:
    assert Segment.attach(name).view("uint8", (1,))[0] == 0


def test_a_child_that_attaches_and_exits_unlinks_nothing(mark):
    made = Segment.create(mark.segment_name("a"), 4096)
    child = multiprocessing.get_context("spawn").Process(target=_attach_and_end, args=(made.name,))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert exists(made.name)
    made.close()
    made.unlink()


def test_attaching_what_is_not_there_is_an_ordinary_error():
    with pytest.raises(FileNotFoundError):
        Segment.attach(f"pinfer-{secrets.token_hex(4)}-nothing")


def test_a_run_is_alive_as_long_as_its_mark_is_held(mark):
    made = Segment.create(mark.segment_name("a"), 4096)
    assert alive(mark.run)
    assert mark.run not in dead_runs()
    assert mark.run not in sweep()
    assert exists(made.name)
    made.close()


def test_removing_a_mark_removes_every_segment_of_the_run_and_of_no_other(mark):
    ours, theirs = RunMark(), Segment.create(mark.segment_name("b"), 4096)
    made = Segment.create(ours.segment_name("a"), 4096)
    made.close()
    ours.remove()
    assert not exists(made.name)
    assert not alive(ours.run)
    assert exists(theirs.name)
    theirs.close()


DIE = """
import os, sys
from parallel_infer.shm.segment import RunMark, Segment
mark = RunMark()
for name in ("a", "lent-g1-b"):
    Segment.create(mark.segment_name(name), 4096)
print(mark.run, flush=True)
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_run_left_is_swept_and_nothing_else(mark):
    living = Segment.create(mark.segment_name("a"), 4096)
    killed = subprocess.run([sys.executable, "-c", DIE], capture_output=True, text=True, check=False)
    run = killed.stdout.strip()
    assert killed.returncode == -9
    sweep()  # or somebody else's, meanwhile
    assert not list(SHM.glob(f"pinfer-{run}*"))
    assert exists(living.name)
    assert exists(f"pinfer-{mark.run}")
    living.close()


def test_segments_of_others_are_left_alone(monkeypatch):
    stale = SHM / f"pinfer-{secrets.token_hex(4)}"
    stale.touch()
    with monkeypatch.context() as patch:
        patch.setattr(segment.os, "getuid", lambda: os.geteuid() + 1)
        assert stale.name.removeprefix("pinfer-") not in dead_runs()
    stale.unlink(missing_ok=True)


def test_two_runs_have_two_names(mark):
    other = RunMark()
    assert other.run != mark.run
    other.remove()


def test_views_are_no_copies(mark):
    made = Segment.create(mark.segment_name("a"), 4096)
    one, two = made.view("float32", (8, 8)), made.view("float32", (8, 8))
    one[:] = 1.5
    assert np.shares_memory(one, two)
    assert two.sum() == 96
    del one, two
    made.close()


def test_a_run_that_begins_while_another_sweeps_is_not_swept(monkeypatch):
    """It has made its mark and not locked it yet: whoever removes that holds the lock until it is gone."""
    run = secrets.token_hex(4)
    path = SHM / f"pinfer-{run}"
    beginning = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    unlink = Path.unlink
    refused = []

    def unlink_late(removed: Path, *, missing_ok: bool = False) -> None:
        if removed == path:
            with pytest.raises(BlockingIOError):
                fcntl.flock(beginning, fcntl.LOCK_EX | fcntl.LOCK_NB)
            refused.append(removed)
        unlink(removed, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink_late)
    try:
        swept = sweep()
    finally:
        os.close(beginning)
    assert (run in swept) == (refused == [path])  # else somebody else's sweep was first
    assert not path.exists()


def test_a_run_that_locks_its_mark_between_two_looks_of_a_sweep_stays(mark, monkeypatch):
    made = Segment.create(mark.segment_name("a"), 4096)
    monkeypatch.setattr(segment, "dead_runs", lambda: [mark.run])  # as it seemed a moment ago
    assert sweep() == []
    assert alive(mark.run)
    assert exists(made.name)
    made.close()
