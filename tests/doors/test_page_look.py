"""The page is read and used by everybody: contrast, the keyboard, names for screen readers, a phone's width."""

from __future__ import annotations

from typing import Any

import pytest

from tests.doors.browser import Tab, tab
from tests.doors.page_server import Served

pytest.importorskip("aiohttp", reason="the HTTP door needs the extra http")
# [text, ratio] of every text whose contrast with what is behind it is too small, by WCAG 2.2, 1.4.3 (level AA).
FAINT = """() => {
  const context = Object.assign(document.createElement('canvas'), {width: 1, height: 1}).getContext('2d');
  const layer = (paint, below) => {
    context.fillStyle = `rgb(${below})`;
    context.fillRect(0, 0, 1, 1);
    context.fillStyle = paint;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const behind = element => {
    if (!element) return [255, 255, 255];
    const box = element.matches('g.node') && element.querySelector('rect');
    const style = getComputedStyle(box || element);
    return layer(box ? style.fill : style.backgroundColor, behind(element.parentElement));
  };
  const luminance = color => {
    const linear = share => share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    const [red, green, blue] = color.map(value => linear(value / 255));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const faint = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || element.closest('#labels, option')) continue;
    if (!element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const back = behind(element);
    const front = layer(element.closest('svg') ? style.fill : style.color, back);
    const [low, high] = [luminance(front), luminance(back)].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (isLarge ? 3 : 4.5)) faint.push([texts.currentNode.data.trim().slice(0, 30), ratio.toFixed(2)]);
  }
  return faint;
}"""
FOCUSED = """() => {
  const element = document.activeElement;
  if (element === document.body) return null; // behind the last one
  const ring = element.matches('.hidden-input') ? element.parentElement.querySelector('.button') : element;
  const style = getComputedStyle(ring);
  const box = ring.getBoundingClientRect();
  const isOnScreen = box.bottom > 0 && box.top < innerHeight;
  return [element.id || element.name || element.textContent.trim(), style.outlineStyle, isOnScreen];
}"""


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> None:
    """Instead of that of all tests: server and browser are shared, and looked at when they have ended."""


@pytest.fixture(params=["light", "dark"])
def phone(request: pytest.FixtureRequest, chromium: Any, page_server: Served) -> Any:
    size = {"width": 390, "height": 844}
    look = {"viewport": size, "color_scheme": request.param, "reduced_motion": "reduce"}
    with tab(chromium, page_server.address, ready="html[data-state=live]", **look) as found:
        found.until("() => document.querySelectorAll('[data-model]').length > 0")
        yield found


def test_it_is_legible_and_used_with_the_keyboard_alone(phone: Tab) -> None:
    assert phone.page.evaluate(FAINT) == []
    assert phone.page.evaluate("document.documentElement.scrollWidth") == 390
    reached = []
    while len(reached) < 90:
        phone.page.keyboard.press("Tab")
        focused = phone.page.evaluate(FOCUSED)
        if focused is None:
            break
        reached.append(focused[0])
        assert focused[1:] == ["solid", True], focused
    wanted = ["Skip to content", "Try it", "theme", "model", "file", "camera", "stage"]
    wanted += ["slider-confidence", "slider-iou", "tab-JSON", "code", "path"]
    assert [name for name in reached if name in wanted] == wanted
    phone.page.focus("#tab-JSON")
    phone.page.keyboard.press("ArrowRight")
    assert phone.page.evaluate("document.activeElement.id") == "tab-curl"
    assert phone.page.get_attribute("nav a[href='#try']", "aria-current") in ("true", None)
