"""What commands write: refused before any work where it would be lost, or would cost somebody an original."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

from parallel_infer import Answer
from parallel_infer.cli import main
from parallel_infer.cli.saved_pictures import SavedPictures, names_for
from parallel_infer.errors import ConfigError
from parallel_infer.files.outputs import Inputs
from parallel_infer.runner.raw_tensors import write_tensors

NOBODY = "ipc:///nowhere/at/all"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(result: Result, text: str) -> None:
    assert result.exit_code == 2, result.output
    assert text in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.fixture
def photos(pictures: Path, tmp_path: Path) -> Path:
    """A folder of originals."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("astronaut.png", "coffee.png"):
        shutil.copy(pictures / name, folder)
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def _same(photos: Path) -> tuple[list[Path], Path]:
    return [photos], photos


def _here(photos: Path) -> tuple[list[Path], Path]:
    os.chdir(photos)
    return [Path("astronaut.png"), Path("coffee.png")], Path()


def _dots(photos: Path) -> tuple[list[Path], Path]:
    return [photos / "coffee.png"], photos / ".." / "photos"


def _linked_folder(photos: Path) -> tuple[list[Path], Path]:
    (photos.parent / "link").symlink_to(photos)
    return [photos / "coffee.png"], photos.parent / "link"


def _hard_links(photos: Path) -> tuple[list[Path], Path]:
    target = photos.parent / "target"
    target.mkdir()
    (target / "coffee.png").hardlink_to(photos / "coffee.png")
    return [photos], target


def _second_of_a_name(photos: Path) -> tuple[list[Path], Path]:
    """`coffee.png` of the other folder would be called `coffee-2.png`, which is an original."""
    other, shared = photos.parent / "other", photos / "coffee-2.png"
    other.mkdir()
    shutil.copy(photos / "coffee.png", shared)
    shutil.copy(photos / "coffee.png", other)
    target = photos.parent / "target"
    target.mkdir()
    (target / "coffee-2.png").symlink_to(shared)
    return [photos / "coffee.png", other / "coffee.png", shared], target


@pytest.mark.parametrize("arrange", [_same, _here, _dots, _linked_folder, _hard_links, _second_of_a_name])
def test_infer_never_writes_over_its_pictures(
    photos: Path, arrange: Callable[[Path], tuple[list[Path], Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    given, target = arrange(photos)
    before = digests(photos)
    refused(run("infer", "--server", NOBODY, "--model", "a", *given, "--save", target), "would write over")
    assert digests(photos) == before


def test_infer_says_at_once_that_nothing_can_be_saved(photos: Path) -> None:
    for target in ("/proc/none/here", "/proc"):
        refused(run("infer", "--server", NOBODY, "--model", "a", photos, "--save", target), "--save /proc")


def test_a_file_is_for_one_picture(photos: Path) -> None:
    given = ("infer", "--server", NOBODY, "--model", "a")
    refused(
        run(*given, photos, "--save", photos.parent / "out.png"), "one file, and there are 2 pictures; name a folder"
    )
    one = (*given, photos / "coffee.png", "--save")
    refused(run(*one, photos.parent / "out.tiff"), "expected a name that ends in .jpg, .jpeg, .png, .webp, or a folder")
    refused(run(*one, photos.parent / "none" / "out.png"), "there is no folder")
    refused(run(*one, photos / "coffee.png"), "would write over")
    (photos.parent / "notes.txt").touch()
    refused(run(*one, photos.parent / "notes.txt"), "is no folder")
    assert sorted(path.name for path in photos.parent.iterdir()) == ["notes.txt", "photos"]


def test_drawn_pictures_have_names_that_no_file_system_takes_for_the_same() -> None:
    files = [Path(name) for name in ("a/X.JPG", "b/x.jpg", "x-2.jpg", "c/x.bmp", "d/x.png")]
    assert list(names_for(files)) == ["X.jpg", "x-2.jpg", "x-2-2.jpg", "x.png", "x-2.png"]


def test_a_disk_that_fails_is_told_of_once(photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    saved = SavedPictures(target, sorted(photos.iterdir()))
    answer = Answer("tensor", "m", {})
    assert saved.save(0, answer) is None
    assert [file.name for file in target.iterdir()] == ["astronaut.png"]
    shutil.rmtree(target)
    trouble = saved.save(1, answer)
    assert trouble is not None
    assert trouble.endswith("coffee.png cannot be written: No such file or directory; no further pictures are saved")
    assert saved.save(1, answer) is None
    assert saved.unsaved == 1


def test_outputs_of_a_run_take_no_name_of_an_input(tmp_path: Path) -> None:
    original = tmp_path / "x_2.bin"
    original.write_bytes(b"original")
    tensors = {"x": np.ones(2, np.float32), "X": np.zeros(2, np.float32)}
    files = write_tensors(tensors, tmp_path, Inputs([original]))
    assert {name: file.name for name, file in files.items()} == {"x": "x_2_1.bin", "X": "X_2.bin"}
    assert original.read_bytes() == b"original"
    assert np.array_equal(np.fromfile(files["x"], np.float32), tensors["x"])
    with pytest.raises(ConfigError, match="--output-dir /proc/none cannot be made"):
        write_tensors(tensors, Path("/proc/none"))


def with_weights_beside(source: Path, target: Path) -> Path:
    """A copy of a model whose weights lie in a file of their own; that file."""
    onnx.save(onnx.load(source), target, save_as_external_data=True, location=f"{target.stem}.data", size_threshold=0)
    return target.with_suffix(".data")


def test_an_empty_folder_of_pictures_is_refused_before_a_server_starts(tmp_path: Path) -> None:
    for command in (("bench",), ("tune", "zoo:classifier")):
        refused(run(*command, "--pictures", tmp_path), f"--pictures {tmp_path} holds no pictures")


def test_what_a_command_reads_is_no_place_to_write_to(photos: Path, zoo: Path, tmp_path: Path) -> None:
    model, run_file, key = tmp_path / "m.onnx", tmp_path / "run.json", tmp_path / "camera.key"
    shutil.copy(zoo / "classifier.onnx", model)
    run_file.write_text("{}")
    key.write_text("secret")
    before = digests(tmp_path / "photos") | {file.name: file.read_text("latin-1") for file in (model, run_file, key)}
    over = "would write over"
    refused(run("tune", model, "--output", model), over)
    refused(run("tune", model, "--pictures", photos, "--output", photos / "coffee.png"), over)
    refused(run("quantize", model, "--calibrate", photos, "--output", tmp_path / "photos" / ".." / "m.onnx"), over)
    refused(run("quantize", model, "--calibrate", photos, "--output", photos / "coffee.png"), over)
    refused(run("bench", "--baseline", run_file, "--save", run_file), over)
    refused(run("bench", "--model", f"m={model}", "--plot", model), over)
    refused(run("bench", "--save", run_file, "--", "--config", run_file), over)
    refused(run("trace", "--server", NOBODY, "--key", key, "--output", key), over)
    weights = with_weights_beside(zoo / "classifier.onnx", tmp_path / "outside.onnx")
    config = tmp_path / "server.toml"
    config.write_text('[models.m]\npath = "outside.onnx"\n')
    size = weights.stat().st_size
    refused(run("tune", tmp_path / "outside.onnx", "--output", weights), over)
    refused(run("bench", "--model", f"m={tmp_path / 'outside.onnx'}", "--save", weights), over)
    refused(run("bench", "--save", tmp_path / "outside.onnx", "--", "--config", config), over)
    assert weights.stat().st_size == size
    after = digests(tmp_path / "photos") | {file.name: file.read_text("latin-1") for file in (model, run_file, key)}
    assert after == before


def test_places_that_cannot_be_written_are_named_before_the_work(zoo: Path, photos: Path) -> None:
    model = zoo / "classifier.onnx"
    refused(run("tune", model, "--output", "/proc/x.toml"), "--output /proc/x.toml: nothing can be written to /proc")
    refused(run("quantize", model, "--calibrate", photos, "--output", "/proc/none/x.onnx"), "there is no folder")
    refused(run("bench", "--save", "/proc/x"), "nothing can be written to /proc")
    assert "/proc' is a directory" in run("bench", "--save", "/proc").stderr
    refused(run("trace", "--server", NOBODY, "--output", "/proc/x"), "nothing can be written to /proc")
    refused(run("demo", "--output", "/proc/none"), "--output /proc/none cannot be made")
    refused(
        run("run-async", "--model-path", model, "--input-binary", "x", "--output-dir", "/proc/none"), "--output-dir"
    )
