"""The examples that use a door, run as users run them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.doors.clients.conftest import Doors

pytestmark = pytest.mark.clients


def run(example: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / example), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_http_client(doors: Doors, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    coffee, cat = pictures / "coffee.png", pictures / "chelsea.png"
    ran = run("http_client.py", coffee, tmp_path / "broken.jpg", "--url", f"http://{doors.http}")
    assert (ran.returncode, ran.stderr) == (1, "")
    first, second = ran.stdout.splitlines()
    assert first.startswith(f"{coffee}: 0.5")
    assert " cup at " in first
    assert "broken.jpg: BAD_INPUT: " in second
    ran = run("http_client.py", cat, "--url", f"http://{doors.http}", "--model", "classifier", "--confidence", 0.1)
    assert (ran.returncode, "cat" in ran.stdout) == (0, True)
    ran = run("http_client.py", cat, "--url", f"http://{doors.http}", "--model", "nobody")
    assert (ran.returncode, "UNKNOWN_MODEL: no model 'nobody'" in ran.stdout) == (1, True)


def test_grpc_stream(doors: Doors, pictures: Path, tmp_path: Path) -> None:
    for name in ("coffee", "astronaut", "chelsea"):
        shutil.copy(pictures / f"{name}.png", tmp_path)
    ran = run("grpc_stream.py", tmp_path, "--address", doors.grpc, "--in-flight", 2)
    assert (ran.returncode, ran.stderr) == (0, "")
    found = dict(line.rsplit(": ", 1) for line in ran.stdout.splitlines())
    assert {Path(name).stem for name in found} == {"coffee", "astronaut", "chelsea"}
    assert found[str(tmp_path / "coffee.png")] == "1"
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    ran = run("grpc_stream.py", tmp_path, "--address", doors.grpc)
    assert (ran.returncode, ran.stdout.count("BAD_INPUT"), len(ran.stdout.splitlines())) == (1, 1, 4)


def test_imagezmq_camera(doors: Doors, pictures: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("coffee", "coffee", "astronaut")):
        shutil.copy(pictures / f"{name}.png", tmp_path / f"{number}.png")
    ran = run("imagezmq_camera.py", tmp_path / "%d.png", "--address", doors.imagezmq)
    assert ran.returncode == 0, ran.stderr
    first, second = ran.stdout.splitlines()
    assert first.startswith("frame 0: ")
    assert "cup" in first
    assert second.startswith("frame 2: ")
    assert "person" in second


def test_frigate_probe(doors: Doors, pictures: Path) -> None:
    ran = run("frigate_probe.py", pictures / "coffee.png", "--endpoint", doors.frigate)
    if ran.returncode == 1 and "DEADLINE_EXCEEDED" in ran.stdout:  # a busy machine, of which Frigate would hear as well
        ran = run("frigate_probe.py", pictures / "coffee.png", "--endpoint", doors.frigate)
    assert (ran.returncode, ran.stderr) == (0, "")
    took, cup = ran.stdout.splitlines()
    assert took.endswith(" ms")
    assert cup.startswith("class 41 0.5")
    ran = run("frigate_probe.py", pictures / "coffee.png", "--endpoint", doors.frigate, "--model", "other.onnx")
    assert (ran.returncode, ran.stdout) == (1, "other.onnx is not served as a detector; Frigate would upload it\n")
