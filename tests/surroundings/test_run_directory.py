"""The folder for a run's sockets, where XDG_RUNTIME_DIR is not what it should be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from parallel_infer.errors import ConfigError
from parallel_infer.process import rundir
from parallel_infer.process.rundir import make_run_directory, remove_directory, socket_directory, sweep_directories

NAME = f"parallel-infer-{os.getuid()}"


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The place that comes after XDG_RUNTIME_DIR here; all others are left alone."""
    place = tmp_path / "other"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(rundir, "USUAL", ())
    monkeypatch.setattr(rundir, "LONGEST", 1000)  # pytest's folders have long names
    yield place
    assert all(not list(base.iterdir()) for base in place.iterdir()), "a folder was left"


def _open_to_others(place: Path) -> None:
    (place / NAME).mkdir(mode=0o755)
    (place / NAME).chmod(0o755)


def _a_link(place: Path) -> None:
    (place / "mine").mkdir(mode=0o700)
    (place / NAME).symlink_to(place / "mine")


def _a_file(place: Path) -> None:
    (place / NAME).touch(mode=0o600)


def _missing(place: Path) -> None:
    place.rmdir()


@pytest.mark.parametrize("spoil", [_open_to_others, _a_link, _a_file, _missing])
def test_another_place_is_taken(spoil, tmp_path, other, monkeypatch):
    place = tmp_path / "runtime"
    place.mkdir()
    spoil(place)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    sweep_directories()
    folder = make_run_directory("run")
    assert folder == other / NAME / "run"
    assert folder.stat().st_mode & 0o777 == 0o700
    remove_directory(folder)


@pytest.mark.parametrize("place", ["/proc/run/user/4242", "/proc", "relative/folder", "", "/nowhere\udcff"], ids=ascii)
def test_places_that_are_nobodys(place, other, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setenv("XDG_RUNTIME_DIR", place)
    sweep_directories()
    folder = make_run_directory("run")
    assert folder == other / NAME / "run"
    caplog.text.encode()  # a log may be read as UTF-8
    remove_directory(folder)


def test_a_place_with_too_long_a_name_is_left_out(tmp_path, other, monkeypatch):
    place = tmp_path / ("ü" * 50)
    place.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    monkeypatch.setattr(rundir, "LONGEST", len(os.fsencode(place)) - 1)
    with socket_directory() as folder:
        assert folder.parent == other / f"{NAME}-local"
        sweep_directories()
        assert folder.is_dir()


@pytest.mark.usefixtures("other")
def test_where_there_is_no_place_at_all_each_is_named(monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/proc")
    monkeypatch.setenv("TMPDIR", "/nowhere")
    with pytest.raises(ConfigError, match=r"made in /proc \(.*\), /nowhere \(No such file.*\); set XDG_RUNTIME_DIR"):
        make_run_directory("run")


@pytest.mark.parametrize("mask", [0, 0o777])
def test_no_umask_opens_or_closes_it(mask, other, monkeypatch):
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    before = os.umask(mask)
    try:
        folder = make_run_directory("run")
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (folder, folder.parent)] == [0o700, 0o700]
    remove_directory(folder)


def test_only_what_nobody_holds_is_swept(tmp_path, other, monkeypatch):
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    kept = make_run_directory("run")
    code = "from parallel_infer.process.rundir import make_run_directory as m; import os; print(m('dead')); os._exit(0)"
    place = "import parallel_infer.process.rundir as r; r.LONGEST = 1000; "
    ran = subprocess.run([sys.executable, "-c", place + code], capture_output=True, text=True, check=True)
    dead = Path(ran.stdout.strip())
    assert dead == other / NAME / "dead"
    (other / NAME / "link").symlink_to(tmp_path)
    sweep_directories()
    assert kept.is_dir()
    assert not dead.exists()
    assert tmp_path.is_dir()
    (other / NAME / "link").unlink()
    remove_directory(kept)
    assert not kept.exists()


def test_a_folder_that_somebody_linked_away_is_not_swept(tmp_path, monkeypatch):
    """A link of another user in /tmp must not have this user's own files removed."""
    place, precious = tmp_path / "place", tmp_path / "home" / "precious"
    place.mkdir()
    precious.mkdir(parents=True)
    (tmp_path / "home").chmod(0o700)
    (place / NAME).symlink_to(tmp_path / "home")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    monkeypatch.setattr(rundir, "LONGEST", 1000)
    sweep_directories()
    assert precious.is_dir()
