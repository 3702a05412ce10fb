"""Saved video: never over what is read, whole or not at all, and nobody waits for a thread that has failed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from parallel_infer import Answer
from parallel_infer.cli import main
from parallel_infer.errors import ConfigError
from parallel_infer.files.outputs import Inputs
from parallel_infer.video import Result, Source, Tally
from parallel_infer.video.recorder import ByTurn, Names, Recorder, paths_for
from tests.surroundings.commands import ROOT

NOBODY = "ipc:///nowhere/at/all"


def shown(number: int, height: int = 48) -> Result:
    pixels = np.random.default_rng(number).integers(0, 255, (height, 64, 3), np.uint8)
    return Result("s", number, number, 0.0, 0.0, Answer("tensor", "m", {}), Tally(), pixels)


def record(path: Path, heights: list[int]) -> Recorder:
    recorder = Recorder(path, ByTurn(), Names([path], Inputs()))
    for number, height in enumerate(heights):
        recorder.add(shown(number, height), 25.0)
    recorder.close()
    return recorder


def frames(path: Path) -> int:
    return int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT))


@pytest.mark.parametrize("write", ["{}", "file://{}", "realtime:{}"])
def test_a_recording_is_never_written_over(write: str, video: Path, tmp_path: Path) -> None:
    original, hard = tmp_path / "street.mp4", tmp_path / "hard.mp4"
    shutil.copy(video, original)
    hard.hardlink_to(original)
    before = original.read_bytes()
    for target in (original, hard, tmp_path / ".." / tmp_path.name / "street.mp4"):
        command = ["stream", "--server", NOBODY, "--model", "m", write.format(original), "--save", str(target)]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 2, result.output
        assert "would write over" in result.stderr
    assert original.read_bytes() == before


def test_nor_is_one_of_several(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "all-a.mp4"):
        shutil.copy(video, name)
    command = ["stream", "--server", NOBODY, "--model", "m", "a.mp4", "all-a.mp4", "--save", "all.mp4"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert "--save all-a.mp4 would write over" in result.stderr


def test_a_further_file_takes_no_name_that_is_taken(tmp_path: Path) -> None:
    out, source = tmp_path / "out.mp4", tmp_path / "out.3.mp4"
    source.touch()
    names = Names([out, tmp_path / "out.2.mp4"], Inputs([source]))
    assert [names.further(out).name for _ in range(2)] == ["out.4.mp4", "out.5.mp4"]


def test_names_of_files_are_short_and_differ_in_more_than_capitals() -> None:
    paths = paths_for(Path("o.mp4"), ["ü" * 120, "ü" * 119, "A.mp4", "a.mp4"])
    assert len({path.name.casefold() for path in paths.values()}) == 4
    assert max(len(path.name.encode()) for path in paths.values()) < 130


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_files_appear_when_they_are_finished(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"out{suffix}"
    path.write_bytes(b"before")
    recorder = Recorder(path, ByTurn(), Names([path], Inputs()))
    recorder.add(shown(0), 25.0)
    assert path.read_bytes() == b"before"
    for number in range(1, 30):
        recorder.add(shown(number, 48 if number < 20 else 32), 25.0)
    recorder.close()
    assert recorder.error == ""
    assert [frames(file) for file in recorder.written] == [20, 10]
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"out.2{suffix}", f"out{suffix}"]


def test_a_folder_that_goes_away_is_said_and_nobody_waits(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    path = folder / "out.mp4"
    recorder = Recorder(path, ByTurn(), Names([path], Inputs()))
    recorder.add(shown(0), 25.0)
    while not list(folder.iterdir()):
        recorder.add(shown(1), 25.0)
    shutil.rmtree(folder)
    for number in range(2, 20):
        recorder.add(shown(number), 25.0)
    recorder.close()
    assert recorder.error.startswith(f"{path} cannot be written")
    assert recorder.written == []


def test_a_name_that_opencv_cannot_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no name that is not UTF-8"):
        Names([tmp_path / "caf\udce9.mp4"], Inputs())


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_full_disk_leaves_no_half_video(suffix: str, tmp_path: Path) -> None:
    """The limit on the size of files stands for the full disk."""
    (tmp_path / f"out{suffix}").write_bytes(b"before")
    code = (
        "import resource, signal; from pathlib import Path; from tests.video.test_recorder import record\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        f"print(record(Path({str(tmp_path / f'out{suffix}')!r}), [48] * 200).error)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stderr == ""
    assert "cannot be written: what was written cannot be read back" in ran.stdout
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [(f"out{suffix}", b"before")]


def test_files_of_a_source(tmp_path: Path) -> None:
    (tmp_path / "a b.png").touch()
    assert Source.of(str(tmp_path)).files == [tmp_path / "a b.png"]
    assert tmp_path / "a b.png" in Source.of(f"file://{tmp_path}/a%20b.png").files
    assert Source.of("rtsp://cam/1").files == []
