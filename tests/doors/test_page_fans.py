"""Several models on the page: each part of a fan, and what a chain says of each object, drawn and listed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.doors.browser import Tab, tab
from tests.doors.page_server import Served
from tests.doors.test_page_ways_in import PHONE, give

pytest.importorskip("aiohttp", reason="the HTTP door needs the extra http")


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> None:
    """Instead of that of all tests: server and browser are shared, and looked at when they have ended."""


@pytest.fixture(scope="module")
def shared(chromium: Any, page_server: Served) -> Iterator[Tab]:
    with tab(chromium, f"{page_server.address}/", ready="html[data-state=live]", **PHONE) as found:
        found.wait_for("#others input", state="attached")
        yield found


@pytest.fixture
def page(shared: Tab) -> Iterator[Tab]:
    """The shared tab, with nothing chosen but one model; nothing on its console."""
    shared.complaints.clear()
    ask(shared, "detector")
    yield shared
    assert shared.complaints == []


def ask(found: Tab, first: str, *more: str) -> None:
    """Choose models."""
    found.page.evaluate("document.querySelector('#more').open = true")
    while found.page.locator("#others input:checked").count():
        found.page.locator("#others input:checked").first.uncheck()
    found.page.select_option("select[name=model]", first)
    for name in more:
        found.page.check(f"#others input[value='{name}']")
    found.page.keyboard.press("Escape")
    assert found.page.locator("#more[open]").count() == 0


def answered(found: Tab, asked: str, picture: str) -> None:
    found.until(
        "([asked, picture]) => document.querySelector('#result').dataset.of === asked &&"
        " document.querySelector('#picture').ariaLabel?.startsWith(picture)",
        [asked, picture],
    )


def test_each_part_of_a_fan_is_drawn_and_listed_under_its_name(
    page: Tab, page_server: Served, pictures: Path, tmp_path: Path
) -> None:
    ask(page, "detector", "kinds", "classifier")
    give(page, "drop", pictures / "coffee.png", "coffee.png")
    answered(page, "detector+kinds+classifier", "coffee.png")
    parts = page_server.infer("detector+kinds+classifier", pictures / "coffee.png")["parts"]
    found = [each["class"] for part in parts.values() for each in part["predictions"]]
    assert [name for name, _ in page.results()] == found
    assert page.page.locator("[data-result] .part b").all_text_contents() == list(parts)
    assert page.page.locator("[data-result] .part span").all_text_contents() == ["4 objects", "1 object", "5 classes"]
    assert page.page.text_content("#summary") == "3 models"
    wanted = [f"detector: {each['class']} {each['confidence']:.2f}" for each in parts["detector"]["predictions"]]
    (cup,) = parts["kinds"]["predictions"]
    wanted += [f"kinds: cup {cup['confidence']:.2f} · espresso"]
    wanted += [f"classifier: espresso  {parts['classifier']['confidence']:.2f}"]
    assert page.page.locator("#labels span").all_text_contents() == wanted
    strokes = page.page.eval_on_selector_all(
        "#overlay polygon.mark", "marks => marks.map(mark => mark.style.stroke || mark.getAttribute('stroke'))"
    )
    assert len(strokes) == 5
    assert len(set(strokes[:4])) == 1 != len(set(strokes))  # a colour for each model
    assert page.page.evaluate("document.documentElement.scrollWidth") <= PHONE["viewport"]["width"]
    shutil.copy(pictures / "coffee.png", tmp_path)
    for name, command in {"curl": ["bash", "-c"], "tritonclient": [sys.executable, "-c"]}.items():
        page.page.click(f"#tab-{name}")
        text = page.page.text_content("#code code")
        run = subprocess.run([*command, text], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert run.returncode == 0, run.stderr
        assert list(json.loads(run.stdout)["parts"]) == list(parts), name


def test_a_threshold_goes_to_every_model_that_knows_it(page: Tab, pictures: Path) -> None:
    ask(page, "detector", "classifier", "pose")
    assert page.page.locator(".slider label").all_text_contents() == [
        "Confidence: detector, classifier, pose",
        "Overlap (IoU): detector, pose",
    ]
    assert page.page.locator(".slider output").first.text_content() == "each model's own"
    give(page, "paste", pictures / "coffee.png", "pasted.png")
    answered(page, "detector+classifier+pose", "pasted.png")
    page.page.locator("input[name=confidence]").fill("0.5")
    page.until("() => document.querySelectorAll('[data-result] [data-class]').length === 2")
    assert [name for name, _ in page.results()] == ["cup", "espresso"]


def test_the_camera_is_answered_by_all_models_chosen(page: Tab) -> None:
    page.page.get_by_role("button", name="Camera").click()
    answered(page, "detector", "camera.jpg")
    ask(page, "detector", "classifier")
    answered(page, "detector+classifier", "camera.jpg")
    assert {"cup", "espresso"} <= {name for name, _ in page.results()}
    page.page.get_by_role("button", name="Camera").click()
    page.wait_for("#camera[aria-pressed=false]")


def test_what_failed_and_what_was_left_out_stands_in_its_place(page: Tab, page_server: Served, pictures: Path) -> None:
    give(page, "drop", pictures / "coffee.png", "before.png")
    answered(page, "detector", "before.png")  # nothing is under way any more that would be shown instead
    answer = page_server.infer("detector+pose", pictures / "coffee.png", "class_filter=cup")  # pose knows no cups
    answer["parts"]["detector"]["left_out"] = {"reader": 3}
    page.page.evaluate(
        "async answer => { (await import('/page/files/results.js')).list(answer, [{name: 'detector', task: 'detect'}]);"
        " await (await import('/page/files/overlay.js')).show(null, answer) }",
        answer,
    )
    heads = page.page.locator("[data-result] .part").all_text_contents()
    assert heads == ["detector1 object", "posefailed"]
    said = page.page.text_content("[data-result] .failed")
    assert said == "BAD_INPUT: " + answer["parts"]["pose"]["error"]["message"]
    assert page.page.text_content("#summary") == "2 models, 1 failed"
    left = page.page.locator("[data-result] .nothing").all_text_contents()
    assert left == ["reader was not asked about 3 further objects: too many"]
    assert page.page.locator("#labels span").count() == 1
