"""How a picture gets to the page: dropped, pasted, from a camera; and what is said where there is none."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.doors.browser import Tab, tab, without_camera
from tests.doors.page_server import Served

pytest.importorskip("aiohttp", reason="the HTTP door needs the extra http")
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
# Gives the page an event with files, or with text, as a user's hand would.
GIVE = """([kind, content, names, text]) => {
  const transfer = new DataTransfer();
  const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
  for (const name of names) transfer.items.add(new File([bytes], name, {type: 'image/png'}));
  if (text) transfer.setData('text/plain', text);
  const how = {bubbles: true, cancelable: true};
  if (kind === 'paste') document.body.dispatchEvent(new ClipboardEvent('paste', {...how, clipboardData: transfer}));
  else for (const step of ['dragenter', 'dragover', 'drop'])
    document.querySelector('#stage').dispatchEvent(new DragEvent(step, {...how, dataTransfer: transfer}));
}"""


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> None:
    """Instead of that of all tests: server and browser are shared, and looked at when they have ended."""


@pytest.fixture(scope="module")
def phone(chromium: Any, page_server: Served) -> Iterator[Tab]:
    with opened(chromium, page_server, **PHONE) as found:
        yield found


def opened(chromium: Any, page_server: Served, **options: Any) -> Any:
    return tab(chromium, f"{page_server.address}/", ready="html[data-state=live]", **options)


def give(found: Tab, kind: str, picture: Path | None, *names: str, text: str = "") -> None:
    content = "" if picture is None else base64.b64encode(picture.read_bytes()).decode()
    found.page.evaluate(GIVE, [kind, content, names, text])


def answered(found: Tab, model: str, picture: str) -> list[str]:
    found.until(
        "([model, picture]) => document.querySelector('#result').dataset.of === model &&"
        " document.querySelector('#picture').ariaLabel?.startsWith(picture)",
        [model, picture],
    )
    return [name for name, _ in found.results()]


def said(found: Tab, words: str) -> None:
    """Wait for these words in the page's alert."""
    found.until("words => document.querySelector('[role=alert]:not([hidden])')?.textContent.includes(words)", words)


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_is_dropped_or_pasted(phone: Tab, pictures: Path, kind: str) -> None:
    phone.page.select_option("select[name=model]", "detector")
    give(phone, kind, pictures / "coffee.png", f"{kind}.png", "another.png")
    assert "cup" in answered(phone, "detector", f"{kind}.png")
    said(phone, "the first of 2")
    assert phone.page.locator("#stage.over").count() == 0
    give(phone, kind, pictures / "astronaut.png", f"then-{kind}.png")
    assert "person" in answered(phone, "detector", f"then-{kind}.png")
    assert phone.page.locator("[role=alert]:visible").count() == 0
    assert phone.complaints == []


@pytest.mark.parametrize(("kind", "words"), [("drop", "is no file"), ("paste", "no picture on the clipboard")])
def test_what_brings_no_picture_is_said(phone: Tab, kind: str, words: str) -> None:
    give(phone, kind, None, text="street.jpg")
    said(phone, words)
    assert phone.page.locator("#alert button").evaluate("button => button.offsetHeight") < 40  # its word is on one line
    phone.page.click("#alert button")


def test_text_is_pasted_into_a_field_as_ever(phone: Tab) -> None:
    phone.page.focus("#load input[name=name]")
    phone.page.evaluate(
        "() => { const transfer = new DataTransfer(); transfer.setData('text/plain', 'street');"
        " document.activeElement.dispatchEvent(new ClipboardEvent('paste', {bubbles: true, clipboardData: transfer})) }"
    )
    assert phone.page.locator("[role=alert]:visible").count() == 0


@pytest.mark.parametrize(("model", "best"), [("detector", "cup"), ("classifier", "espresso")])
def test_the_cameras_frames_are_answered_by_the_chosen_model(phone: Tab, model: str, best: str) -> None:
    """The camera shows coffee.png."""
    phone.page.select_option("select[name=model]", model)
    phone.page.get_by_role("button", name="Camera").click()
    assert answered(phone, model, "camera.jpg")[0] == best
    if model == "detector":
        box = phone.page.locator("#overlay polygon.mark").first.get_attribute("points").replace(",", " ").split()
        left, top, right, bottom = (float(box[place]) for place in (0, 1, 4, 5))
        assert left < 300 < right  # the cup is in the middle of 600 x 400
        assert top < 200 < bottom
    assert phone.page.locator("#camera[aria-pressed=true]").count() == 1
    phone.page.get_by_role("button", name="Camera").click()
    phone.wait_for("#camera[aria-pressed=false]")
    assert phone.page.evaluate("document.documentElement.scrollWidth") <= PHONE["viewport"]["width"]
    assert phone.complaints == []


def test_a_camera_that_may_not_be_used_is_said(chromium: Any, page_server: Served) -> None:
    with opened(chromium, page_server, permissions=[]) as found:
        found.page.get_by_role("button", name="Camera").click()
        said(found, "does not let this page use the camera")
        found.wait_for("#camera[aria-pressed=false]")


def test_a_device_without_a_camera_is_said(chromium: Any, page_server: Served) -> None:
    with without_camera(chromium) as started, opened(started, page_server) as found:
        found.page.get_by_role("button", name="Camera").click()
        said(found, "no camera on this device")
        found.wait_for("#camera[aria-pressed=false]")
