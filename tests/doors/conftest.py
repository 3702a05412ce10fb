"""What several files of tests of the doors share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest

from tests.doors.browser import browser, camera
from tests.doors.page_server import Served, serving_every_task


@pytest.fixture(scope="session")
def page_server(_adopt_orphans: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with the page and a model of each task, shared: tests leave it as they found it."""
    pytest.importorskip("aiohttp", reason="the HTTP door needs the extra http")
    with serving_every_task(tmp_path_factory.mktemp("small")) as found:
        yield found


@pytest.fixture(scope="module")
def chromium(_adopt_orphans: None, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser without a screen; skips where there is none. While it is there no other event loop runs here.

    Its camera shows coffee.png.
    """
    video = tmp_path_factory.mktemp("camera") / "coffee.mjpeg"
    cv2.imwrite(str(video.with_suffix(".jpg")), cv2.imread(str(pictures / "coffee.png")))
    video.with_suffix(".jpg").rename(video)  # a stream of JPEGs: this one, again and again
    with browser(*camera(video)) as started:
        yield started
