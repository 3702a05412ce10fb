"""A real browser on the page: Chromium without a screen, driven by playwright."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SWITCHES = ("--no-sandbox",)
PATIENCE = 60_000.0  # ms; the machine may be busy


def executable() -> str:
    """Chromium on this machine; the test is skipped where there is none."""
    pytest.importorskip("playwright", reason="playwright is not installed (extra dev)")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"there is no Chromium here (looked for {', '.join(NAMES)}; Debian: apt install chromium)")
    return found


class Tab(NamedTuple):
    """One page, and what it asked for and complained about."""

    page: Any
    requests: list[str]
    complaints: list[str]  # errors on its console, and exceptions nobody caught

    def wait_for(self, selector: str, **options: Any) -> Any:
        return self.page.wait_for_selector(selector, timeout=PATIENCE, **options)

    def until(self, expression: str, argument: Any = None) -> Any:
        """Wait until a JavaScript expression, or a function of `argument`, is true."""
        return self.page.wait_for_function(expression, arg=argument, timeout=PATIENCE)

    def results(self) -> list[tuple[str, float]]:
        """(class, score) of each row of the answer."""
        rows = self.page.eval_on_selector_all(
            "[data-result] [data-class]", "rows => rows.map(row => [row.dataset.class, Number(row.dataset.score)])"
        )
        return [(name, score) for name, score in rows]

    def metric(self, name: str) -> str:
        return str(self.page.text_content(f"[data-metric={name}]"))


@contextlib.contextmanager
def browser(*further: str) -> Iterator[Any]:
    """A browser, with further switches; its tabs are its contexts'."""
    path = executable()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=[*SWITCHES, *further])
        try:
            yield started
        finally:
            started.close()


def camera(video: Path) -> tuple[str, str]:
    """The switches for a camera that shows `video` (.y4m or .mjpeg), over and over."""
    return "--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={video}"


@contextlib.contextmanager
def without_camera(started: Any) -> Iterator[Any]:
    """A second browser beside this one, on a device without a camera."""
    other = started.browser_type.launch(executable_path=executable(), args=list(SWITCHES))
    try:
        yield other
    finally:
        other.close()


@contextlib.contextmanager
def tab(started: Any, address: str, ready: str = "", **options: Any) -> Iterator[Tab]:
    """The page at `address` in a context of its own: nothing is remembered from others. It waits for `ready`."""
    context = started.new_context(**{"permissions": ["camera"], **options})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    found = Tab(page, [], [])
    page.on("request", lambda request: found.requests.append(request.url))
    page.on("console", lambda message: found.complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: found.complaints.append(str(error)))
    try:
        page.goto(address)
        if ready:
            found.wait_for(ready)
        yield found
    finally:
        context.close()
