"""An open page costs little: nothing moves by itself, nothing is asked in the background, previews are small."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from parallel_infer.doors.http.page.previews import Seen, preview
from parallel_infer.limits import PREVIEW_SIDE
from tests.doors.browser import Tab, tab
from tests.doors.page_server import Served

pytest.importorskip("aiohttp", reason="the HTTP door needs the extra http")
# As a browser does when its window is covered or another tab is in front.
SHOW = """isHidden => {
  Object.defineProperty(document, 'hidden', {configurable: true, value: isHidden});
  document.dispatchEvent(new Event('visibilitychange'));
}"""


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> None:
    """Instead of that of all tests: server and browser are shared, and looked at when they have ended."""


@pytest.fixture(scope="module")
def page(chromium: Any, page_server: Served) -> Iterator[Tab]:
    size = {"width": 800, "height": 500}
    with tab(chromium, page_server.address, ready="html[data-state=live]", viewport=size) as found:
        yield found


def works(page: Tab, page_server: Served, pictures: Path) -> None:
    """Has the server answer a picture, and waits until the page says so."""
    before = int(page.metric("answered"))
    page_server.infer("classifier", pictures / "chelsea.png")
    page.until("least => Number(document.querySelector('[data-metric=answered]').textContent) > least", before)


def test_nothing_moves_by_itself(page: Tab, page_server: Served, pictures: Path) -> None:
    works(page, page_server, pictures)
    assert page.page.evaluate("document.getAnimations().length") == 0


def test_a_page_in_the_background_asks_nothing(page: Tab, page_server: Served, pictures: Path) -> None:
    ended = []
    page.page.on("requestfailed", lambda request: ended.append(request.url))
    page.page.evaluate(SHOW, True)
    page.wait_for("html[data-state=paused]")
    while not any(url.endswith("/page/live") for url in ended):
        page.page.wait_for_event("requestfailed")
    asked = len(page.requests)
    for _ in range(3):
        page_server.infer("classifier", pictures / "chelsea.png")
    before = page.metric("answered")
    page.page.evaluate(SHOW, False)
    page.wait_for("html[data-state=live]")
    page.until(
        "least => Number(document.querySelector('[data-metric=answered]').textContent) >= least + 3", int(before)
    )
    assert [url for url in page.requests[asked:] if "/page/" in url] == [f"{page_server.address}/page/live"]
    assert page.complaints == []


@pytest.mark.parametrize("width", [300, 767, 768, 1536, 4000])
def test_a_preview_is_small_and_right_at_every_size(width: int) -> None:
    """White on the left, black on the right, and a box in the right half; large frames are read reduced."""
    height = width // 2
    frame = np.zeros((height, width, 3), np.uint8)
    frame[:, : width // 2] = 255
    box = {"x": 0.75 * width, "y": 0.5 * height, "width": 0.25 * width, "height": 0.5 * height}
    answer = {
        "predictions": [{**box, "confidence": 0.5, "class_id": 0, "class": "cup"}],
        "image": {"width": width, "height": height},
    }
    jpeg = cv2.imencode(".jpg", frame)[1].tobytes()
    seen = Seen("picture", (), {}, jpeg, "objects", msgspec.Raw(msgspec.msgpack.encode(answer)), b"")

    shown = cv2.imdecode(np.frombuffer(preview(seen), np.uint8), cv2.IMREAD_COLOR)

    high, wide = shown.shape[:2]
    assert (wide, high) == pytest.approx((min(width, PREVIEW_SIDE), min(width, PREVIEW_SIDE) / 2), abs=1)
    assert shown[:, : wide // 2 - 8].min() > 200
    coloured = np.nonzero(shown[:, wide // 2 + 8 :].max(2) > 100)
    left, right = coloured[1].min() + wide // 2 + 8, coloured[1].max() + wide // 2 + 8
    assert (left / wide, coloured[0].max() / high) == pytest.approx((0.625, 0.75), abs=0.03)
    assert right / wide == pytest.approx(0.875, abs=0.03)
