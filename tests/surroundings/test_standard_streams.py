"""Standard output that is full, closed, not blocking or in an encoding of few letters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.serving import Server, eventually
from tests.surroundings.commands import ROOT, one_line, run

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
FULL = "Error: standard output: No space left on device; make room on that disk"
SMALL = ["--provider", "cpu", "--instances", "1", "--decode-workers", "1", "--postprocess-workers", "1"]


@pytest.mark.parametrize("unbuffered", [None, "1"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["serve", "--help"],
        ["serve", "--print-config"],
        ["infer", "--model", "work", "--json", "no-such-file"],
        ["models", "list"],
        ["status", "--json"],
    ],
    ids=" ".join,
)
def test_a_full_disk_behind_stdout_is_one_line(server: Server, arguments: list[str], unbuffered: str | None) -> None:
    environment = {"PARALLEL_INFER_SERVER": server.address, "PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("wb") as full:
        ran = run(*arguments, environment=environment, stdout=full)
    one_line(ran, FULL)


def test_a_closed_pipe_ends_a_command_without_a_word() -> None:
    read, write = os.pipe()
    os.close(read)
    ran = run("serve", "--print-config", stdout=write)
    os.close(write)
    assert (ran.returncode, ran.stderr) == (1, b"")


def test_a_closed_stdout_is_nothing_to_speak_of(server: Server, pictures: Path) -> None:
    asked = f"infer --server {server.address} --model detector {pictures / 'chelsea.png'}"
    for arguments in ("--version >&-", f"{asked} --csv >&-", f"{asked} --json <&- >&-"):
        command = f'"{sys.executable}" -m parallel_infer {arguments}'
        ran = subprocess.run(["sh", "-c", command], cwd=ROOT, check=False, capture_output=True)
        assert (ran.returncode, ran.stderr) == (0, b"")


def test_a_full_stderr_leaves_the_exit_code() -> None:
    command = f'"{sys.executable}" -m parallel_infer models load a b --option x=1 2>/dev/full'
    assert subprocess.run(["sh", "-c", command], cwd=ROOT, check=False).returncode == 2


def test_a_pipe_that_does_not_block_loses_nothing() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    with subprocess.Popen(
        [sys.executable, "-m", "parallel_infer", "serve", "--help"], cwd=ROOT, stdout=write
    ) as process:
        os.close(write)
        said = b""
        while piece := os.read(read, 512):
            said += piece
    os.close(read)
    assert process.returncode == 0
    assert said.endswith(b"the environment over the file.\n")


def test_a_server_goes_on_without_its_line(tensor_models: Path, tmp_path: Path) -> None:
    address, log = f"ipc://{tmp_path}/s", tmp_path / "log"
    command = [sys.executable, "-m", "parallel_infer", "serve", *SMALL, "--bind", address]
    command += ["--model", f"pair={tensor_models / 'pair.onnx'}", "--shared-memory-mb", "32"]
    with Path("/dev/full").open("wb") as full, log.open("wb") as errors:
        process = subprocess.Popen(command, cwd=ROOT, stdout=full, stderr=errors)
    try:
        eventually(lambda: "the line that says ready cannot be written" in log.read_text(), 60)
        listed = run("models", "list", "--server", address, "--json")
        assert [model["name"] for model in json.loads(listed.stdout)] == ["pair"]
    finally:
        process.terminate()
        assert process.wait(60) == 0
    assert "Traceback" not in log.read_text()


def test_letters_that_a_locale_lacks_are_written_otherwise(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "Müller \N{SNOWMAN}.png"
    environment = ASCII | {"PARALLEL_INFER_SERVER": server.address}
    for form in (["--csv"], ["--json"], []):
        ran = run("infer", "--model", "work", *form, file, environment=environment)
        assert ran.returncode == 1
        said = ran.stdout + ran.stderr
        assert b"Traceback" not in said
        assert b"BAD_INPUT" in said
        assert b"ller" in said


def test_names_that_are_no_text_come_out_as_they_are(server: Server, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    ran = run("infer", "--model", "work", name, environment={"PARALLEL_INFER_SERVER": server.address})
    assert ran.returncode == 1
    assert ran.stderr.startswith(name + b": BAD_INPUT: ")
    assert ran.stderr.count(b"\n") == 1
