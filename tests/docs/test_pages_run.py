"""The Python of the pages for beginners runs as it stands, with a server and pictures under the names it uses."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import cv2
import pytest

from parallel_infer.tools.local_server import LocalServer
from tests.docs.pages import Page

PAGES = ("docs/index.md", "docs/tutorial.md", "docs/howto/python.md")
BLOCKS = [(name, number, code) for name in PAGES for number, code in enumerate(Page.read(name).blocks("python"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """The pictures and the recording that the pages speak of."""
    made = tmp_path_factory.mktemp("reader")
    (made / "photos").mkdir()
    for name in ("street.jpg", "a.jpg", "b.jpg", "photos/one.jpg", "photos/two.jpg"):
        shutil.copy(pictures / "astronaut.png", made / name)
    frame = cv2.imread(str(pictures / "astronaut.png"))
    video = cv2.VideoWriter(str(made / "camera.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5, frame.shape[1::-1])
    for _ in range(3):
        video.write(frame)
    video.release()
    return made


@pytest.mark.parametrize(("name", "number", "code"), BLOCKS, ids=lambda value: str(value).partition("\n")[0])
def test_its_python_runs(
    name: str,
    number: int,
    code: str,
    folder: Path,
    server: LocalServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = code.replace(", timeout=5.0", "")
    code = re.sub(r"Client\((\"[^\"]*\")?", f'Client("{server.address}", timeout=60.0', code)
    code = code.replace('"street"', '"detector"').replace("VideoCapture(0)", 'VideoCapture("camera.avi")')
    monkeypatch.chdir(folder)
    exec(compile(code, f"{name}, block {number + 1}", "exec"), {})
    printed = capsys.readouterr().out

    assert "person" in printed or "frame[:] = 0" in code
