"""The examples that need a server, run as users run them against a real one."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from parallel_infer.tools.local_server import LocalServer, local_server

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def served() -> Iterator[LocalServer]:
    with local_server("--model", "detector=zoo:detector", "--provider", "cpu") as server:
        yield server


def run(example: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / example), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_folder_to_csv(served, pictures, tmp_path):
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    shutil.copy(pictures / "astronaut.png", folder)
    shutil.copy(pictures / "chelsea.png", folder / "more")
    (folder / "broken.jpg").write_bytes(b"no picture")
    ran = run("folder_to_csv.py", folder, tmp_path / "found.csv", "--address", served.address)
    assert (ran.returncode, ran.stderr) == (1, "")
    assert ran.stdout.startswith("3 pictures, ")
    assert " 1 failed: " in ran.stdout
    with (tmp_path / "found.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    by_file = {row["file"]: row for row in reversed(rows)}
    assert list(by_file) == ["more/chelsea.png", "broken.jpg", "astronaut.png"]
    assert by_file["broken.jpg"]["error"] == "BAD_INPUT"
    person = by_file["astronaut.png"]
    assert person["class"] == "person"
    assert 0 <= float(person["left"]) < float(person["right"]) <= 512
    assert "cat" in {row["class"] for row in rows if row["file"] == "more/chelsea.png"}


def test_camera_grid(served, pictures, tmp_path):
    for name in ("astronaut", "coffee"):
        folder = tmp_path / name
        folder.mkdir()
        for number in range(3):
            shutil.copy(pictures / f"{name}.png", folder / f"{number}.png")
    grid = tmp_path / "grid.jpg"
    ran = run(
        "camera_grid.py", tmp_path / "astronaut", tmp_path / "coffee", "--server", served.address, "--output", grid
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.count(" ended") == 2
    picture = cv2.imread(str(grid))
    assert picture.shape == (360, 1280, 3)
    for tile in (picture[:, :640], picture[:, 640:]):
        assert tile[:300].std() > 20, "a tile without a picture"


def test_count_crossings(served, pictures, tmp_path):
    person = cv2.resize(cv2.imread(str(pictures / "astronaut.png")), (200, 200), interpolation=cv2.INTER_AREA)
    for number in range(12):
        frame = np.full((270, 480, 3), 150, np.uint8)
        frame[60:260, 20 * number : 20 * number + 200] = person
        cv2.imwrite(str(tmp_path / f"{number:02}.png"), frame)
    ran = run("count_crossings.py", tmp_path, "--line", "0.5,1,0.5,0:door", "--server", served.address)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert sum(line.endswith("1 person in") for line in ran.stdout.splitlines()) == 1


def test_no_example_writes_over_what_it_reads(pictures, tmp_path):
    original = tmp_path / "astronaut.png"
    shutil.copy(pictures / "astronaut.png", original)
    before = original.read_bytes()
    ran = run("folder_to_csv.py", tmp_path, original, "--address", "ipc:///nowhere")
    assert (ran.returncode, "is one of the pictures" in ran.stderr) == (2, True)
    ran = run("camera_grid.py", tmp_path, "--server", "ipc:///nowhere", "--output", tmp_path / "." / "astronaut.png")
    assert (ran.returncode, "is read as a source" in ran.stderr) == (2, True)
    assert original.read_bytes() == before


def test_every_example_is_run_by_a_test():
    tests = "".join(path.read_text("utf-8") for path in EXAMPLES.parent.joinpath("tests").rglob("test_*.py"))
    examples = [path.name for path in EXAMPLES.glob("*.py")]
    assert examples
    assert [name for name in examples if f'"{name}"' not in tests and f'"examples/{name}"' not in tests] == []
