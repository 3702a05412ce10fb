"""Folders that are gone, names that are no text, and values of the environment that libraries would fail with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from parallel_infer.cli.surroundings import described
from parallel_infer.pictures import opencv_limit
from parallel_infer.pictures.opencv_limit import VARIABLE, set_pixel_limit
from tests.engine.serving import Server
from tests.surroundings.commands import ROOT, one_line, run

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}


def in_a_folder_that_is_gone(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    folder = tmp_path / "gone"
    folder.mkdir()
    command = 'rmdir "$PWD" && exec "$0" -m parallel_infer "$@"'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["sh", "-c", command, sys.executable, *arguments],
        cwd=folder, env=environment, capture_output=True, check=False,
    )  # fmt: skip


def test_nobody_needs_the_folder_it_was_started_in(tmp_path: Path) -> None:
    ran = in_a_folder_that_is_gone(tmp_path, "serve", "--print-config", "--keys", "/k", "--bind", "ipc:///s")
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"zoo:detector" in ran.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "--print-config", "--model", "a=relative.onnx"],
        ["serve", "--print-config", "--keys", "relative"],
        ["run-async", "--model-path", "relative.onnx", "--dry-run"],
        ["infer", "--server", "ipc:///nowhere", "--model", "a", "a.png", "--save", "relative"],
        ["trace", "--server", "ipc:///nowhere", "-o", "relative.json"],
        ["keys", "new", "camera"],
    ],
    ids=" ".join,
)
def test_a_relative_path_in_a_folder_that_is_gone_is_one_line(arguments: list[str], tmp_path: Path) -> None:
    ran = in_a_folder_that_is_gone(tmp_path, *arguments)
    assert ran.returncode in (1, 2)
    assert ran.stderr.startswith(b"Error: ")
    assert ran.stderr.count(b"\n") == 1


def test_names_in_a_locale_without_utf8_are_what_they_are(server: Server, pictures: Path, tmp_path: Path) -> None:
    file = tmp_path / "Kätzchen \N{SNOWMAN}.png"
    shutil.copy(pictures / "chelsea.png", file)
    environment = ASCII | {"PARALLEL_INFER_SERVER": server.address}
    saved = tmp_path / "Ausgänge"
    ran = run("infer", "--model", "detector", "--json", file, "--save", saved, environment=environment)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert json.loads(ran.stdout)["file"] == str(file)
    assert (saved / file.name).is_file()
    ran = run("stream", "--model", "detector", "--json", tmp_path, environment=environment)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1])["answered"] == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["inspect", b"\xe9.onnx"], r"\udce9.onnx is no name in UTF-8; rename the file"),
        (["run-async", "--dry-run", "--model-path", b"\xe9.onnx"], "is no name in UTF-8"),
        (["serve", "--dry-run", "--model", b"a=\xe9.onnx"], r"\udce9.onnx is no name in UTF-8; rename it"),
        (["serve", "--dry-run", "--bind", b"ipc:///\xe9"], "is a path that is no UTF-8"),
        (["models", "list", "--server", b"ipc:///\xe9"], r"'ipc:///\\udce9' cannot be written as utf-8"),
        (["stream", "--model", "m", "0", "--save", b"\xe9.mp4"], "OpenCV writes to no name that is not UTF-8"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_name_that_is_no_text_is_named_where_it_cannot_be_used(
    arguments: list[str | bytes], text: str, zoo: Path, tmp_path: Path
) -> None:
    shutil.copy(zoo / "classifier.onnx", os.fsencode(tmp_path) + b"/\xe9.onnx")
    ran = run(*arguments, cwd=tmp_path)
    said = ran.stderr.decode(errors="replace")
    assert ran.returncode in (1, 2), said
    assert text in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("given", "limit"),
    [
        ("400000000", 400_000_000),
        ("512MB", 2**29),
        ("524288 kb", 2**29),
        ("1000", 2**28),
        ("abc", 2**28),
        ("", 2**28),
        ("0", 2**28),
        ("-1", 2**28),
    ],
)
def test_opencvs_limit_is_one_it_can_read(given: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, given)
    assert set_pixel_limit() == limit
    assert os.environ[VARIABLE] == str(limit)


def test_without_the_variable_there_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert set_pixel_limit() == opencv_limit.USUAL
    monkeypatch.delenv(VARIABLE)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(24, "Too many open files"), "Too many open files; allow this process more open files (ulimit -n)"),
        (PermissionError(13, "Permission denied", "/a"), "/a: Permission denied"),
        (OSError(18, "Invalid cross-device link", "/a", None, "/b"), "/a: /b: Invalid cross-device link"),
        (OSError("odd"), "odd"),
        (MemoryError(), "there is not enough memory; allow this process more"),
        (RuntimeError("can't start new thread"), "no further thread can be started; allow this user more processes"),
        (ImportError("x.so: failed to map segment from shared object"), "not enough memory to load a library: x.so"),
    ],
)
def test_errors_of_the_surroundings_are_known(error: Exception, text: str) -> None:
    said = described(error)
    assert said is not None
    assert text in said


@pytest.mark.parametrize("error", [RuntimeError("other"), ValueError("x"), ImportError("No module named 'x'")])
def test_a_fault_of_our_own_keeps_its_traceback(error: Exception) -> None:
    assert described(error) is None


def test_few_open_files_are_one_line(server: Server, pictures: Path) -> None:
    command = 'ulimit -n 16; exec "$0" -m parallel_infer infer --model detector "$1"'
    environment = {**os.environ, "PARALLEL_INFER_SERVER": server.address}
    ran = subprocess.run(
        ["sh", "-c", command, sys.executable, pictures / "chelsea.png"],
        cwd=ROOT, env=environment, capture_output=True, check=False,
    )  # fmt: skip
    one_line(ran, "Too many open files; allow this process more open files (ulimit -n)")


def test_the_traceback_is_there_for_whoever_asks() -> None:
    with Path("/dev/full").open("wb") as full:
        ran = run("serve", "--print-config", "--log-level", "debug", stdout=full)
    assert ran.returncode == 1
    assert b"Traceback" in ran.stderr
    assert ran.stderr.endswith(b"Error: standard output: No space left on device; make room on that disk\n")


@pytest.mark.parametrize("columns", ["0", "1", "abc", "-5"])
def test_a_terminal_without_a_width_hides_nothing(server: Server, columns: str) -> None:
    environment = {"COLUMNS": columns, "LINES": "0", "TERM": "dumb", "TZ": "Nowhere/X"}
    ran = run("top", "--once", "--interval", "0.1", "--server", server.address, environment=environment)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"detector" in ran.stdout


@pytest.mark.parametrize("given", ["abc", "1MB"])
def test_opencvs_variable_of_another_program_stops_nothing(
    server: Server, pictures: Path, given: str, tmp_path: Path
) -> None:
    environment = {VARIABLE: given, "PARALLEL_INFER_SERVER": server.address}
    picture = pictures / "chelsea.png"
    ran = run("infer", "--model", "detector", picture, "--save", tmp_path / "saved", environment=environment)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert (tmp_path / "saved" / "chelsea.png").is_file()
