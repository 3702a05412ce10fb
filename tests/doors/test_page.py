"""The page of a real server in a real browser: what it draws, counts and says is what the server answers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import msgpack
import numpy as np
import pytest
import zmq

from tests.doors.browser import Tab, tab
from tests.doors.page_server import EVIL, Served

pytest.importorskip("aiohttp", reason="the HTTP door needs the extra http")


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> None:
    """Instead of that of all tests: server and browser are shared, and looked at when they have ended."""


@pytest.fixture(scope="module")
def shared(chromium: Any, page_server: Served) -> Iterator[Tab]:
    """One tab for all tests that leave it as they found it."""
    with tab(chromium, page_server.address, viewport={"width": 1440, "height": 900}) as found:
        found.wait_for("html[data-state=live]")
        found.until("() => document.querySelector('select[name=model]').options.length > 0")
        yield found


@pytest.fixture
def page(shared: Tab) -> Iterator[Tab]:
    """The shared tab; nothing on its console, and no request that leaves the machine."""
    shared.complaints.clear()
    yield shared
    origin = shared.page.evaluate("location.origin")
    assert [url for url in shared.requests if not url.startswith((origin + "/", f"blob:{origin}"))] == []
    assert shared.complaints == []


def upload(found: Tab, name: str, picture: Path) -> list[tuple[str, float]]:
    """Choose a model and a picture; the rows of the answer."""
    found.page.evaluate("document.querySelector('#picture').removeAttribute('aria-label')")  # set once all is drawn
    found.page.select_option("select[name=model]", name)
    found.page.set_input_files("input[type=file]", str(picture))
    shown = "document.querySelector('#picture').ariaLabel?.startsWith(file)"
    of_model = "document.querySelector('#result').dataset.of === model"  # one asked before may have been under way
    found.until(f"([file, model]) => {shown} && {of_model}", [picture.name, name])
    return found.results()


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("picture", ["coffee.png", "astronaut.png", "chelsea.png"])
def test_objects_are_those_of_the_shipped_expectations(
    page: Tab, pictures: Path, expected: dict[str, Any], picture: str
) -> None:
    found = upload(page, "detector", pictures / picture)
    assert [name for name, _ in found] == [each["name"] for each in expected[picture]["detect"]]
    assert [score for _, score in found] == pytest.approx(
        [each["score"] for each in expected[picture]["detect"]], abs=0.02
    )
    assert page.page.locator("#overlay g").count() == len(found)
    assert page.page.locator("#labels span").all_text_contents() == [f"{name} {score:.2f}" for name, score in found]


def test_top_classes_are_those_of_the_shipped_expectations(page: Tab, pictures: Path, expected: dict[str, Any]) -> None:
    found = upload(page, "classifier", pictures / "coffee.png")
    wanted = expected["coffee.png"]["classify"]
    assert [name for name, _ in found][:3] == [name for name, _ in wanted]
    assert found[0][1] == pytest.approx(wanted[0][1], abs=0.02)
    assert page.page.text_content("#labels .caption") == f"espresso  {found[0][1]:.2f}"


@pytest.mark.parametrize(("name", "drawn"), [("segmenter", "#dense"), ("pose", "#overlay path.dot")])
def test_masks_and_skeletons_are_what_the_server_answers(
    page: Tab, page_server: Served, pictures: Path, name: str, drawn: str
) -> None:
    found = upload(page, name, pictures / "astronaut.png")
    answer = page_server.infer(name, pictures / "astronaut.png", "mask_format=rle" if name == "segmenter" else "")
    assert [each for each, _ in found] == [each["class"] for each in answer["predictions"]] == ["person"]
    if name == "pose":
        seen = [joint for joint in answer["predictions"][0]["keypoints"] if joint["confidence"] >= 0.5]
        assert page.page.locator(drawn).count() == len(seen) > 0
        return
    count = page.page.eval_on_selector(
        drawn,
        "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data"
        ".filter((value, at) => at % 4 === 3 && value).length",
    )
    lengths = page.page.evaluate(
        "async text => (await import('/page/files/overlay.js')).runs(text)", answer["predictions"][0]["rle"]["counts"]
    )
    assert sum(lengths) == 512 * 512
    assert count == sum(lengths[1::2])


def test_a_class_map_is_painted_class_by_class(page: Tab, pictures: Path) -> None:
    found = upload(page, "classes", pictures / "coffee.png")
    assert sorted(found) == [("<b>car</b>", pytest.approx(0.5, abs=0.01)), ("sky", pytest.approx(0.5, abs=0.01))]
    colour = "([canvas, x]) => [...canvas.getContext('2d').getImageData(x, 200, 1, 1).data].slice(0, 3)"
    canvas = page.page.query_selector("#dense")
    left, right = (page.page.evaluate(colour, [canvas, x]) for x in (100, 500))
    assert left != right
    assert page.page.locator("[data-result] b b").count() == 0


def test_a_map_of_numbers_goes_from_dark_to_bright(page: Tab, pictures: Path) -> None:
    upload(page, "depth", pictures / "coffee.png")
    sums = page.page.eval_on_selector(
        "#dense",
        "canvas => [2, canvas.height - 3].map(y => [...canvas.getContext('2d').getImageData(9, y, 1, 1).data]"
        ".slice(0, 3).reduce((a, b) => a + b))",
    )
    assert sums[0] < 60 < 500 < sums[1]


def test_rotated_boxes_lines_of_text_and_vectors(page: Tab, pictures: Path) -> None:
    assert [name for name, _ in upload(page, "turned", pictures / "coffee.png")] == ["plane"]
    corners = page.page.get_attribute("#overlay polygon.mark", "points").split()
    ys = [float(corner.split(",")[1]) for corner in corners]
    assert len({round(y) for y in ys}) == 4  # no side is level
    assert [name for name, _ in upload(page, "reader", pictures / "coffee.png")] == ["ok"]
    upload(page, EVIL, pictures / "coffee.png")
    assert page.page.get_attribute("[data-result] svg", "aria-label") == "A vector of 8 numbers"


def test_a_chain_shows_what_each_model_says_of_an_object(page: Tab, pictures: Path) -> None:
    found = upload(page, "kinds", pictures / "coffee.png")
    assert [name for name, _ in found] == ["cup"]
    said = page.page.inner_text("[data-result] .child")
    assert said.startswith("classifier: espresso 0.")
    assert page.page.locator("#labels span").all_text_contents() == [f"cup {found[0][1]:.2f} · espresso"]
    card = page.page.locator('[data-model="kinds"]')
    assert card.locator(".chain").inner_text() == "detector(class_filter=cup) > classifier(top=1)"
    assert card.get_by_role("button").all_text_contents() == ["Unload"]  # it is no file that could be read again


def test_names_are_text_and_never_markup(page: Tab) -> None:
    assert page.page.locator("img[src=x]").count() == 0
    assert page.page.title() == "parallel-infer"
    cards = page.page.eval_on_selector_all("[data-model]", "cards => cards.map(card => card.dataset.model)")
    assert EVIL in cards
    assert EVIL in page.page.locator("select[name=model] option").all_text_contents()


def test_sliders_act_at_once(page: Tab, pictures: Path) -> None:
    upload(page, "detector", pictures / "coffee.png")
    page.page.locator("input[name=confidence]").fill("0.5")
    page.until("() => document.querySelectorAll('[data-result] [data-class]').length === 1")
    assert [name for name, _ in page.results()] == ["cup"]
    page.page.locator("input[name=confidence]").fill("0.25")
    page.until("() => document.querySelectorAll('[data-result] [data-class]').length === 4")


def test_the_request_to_copy_works_as_it_stands(page: Tab, page_server: Served, pictures: Path, tmp_path: Path) -> None:
    found = upload(page, "detector", pictures / "coffee.png")
    shutil.copy(pictures / "coffee.png", tmp_path)
    commands = {"curl": ["bash", "-c"], "Python": [sys.executable, "-c"], "tritonclient": [sys.executable, "-c"]}
    if shutil.which("curl") is None:
        del commands["curl"]
    for name, command in commands.items():
        page.page.click(f"#tab-{name}")
        text = page.page.text_content("#code code")
        run = subprocess.run([*command, text], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert run.returncode == 0, run.stderr
        assert [each["class"] for each in json.loads(run.stdout)["predictions"]] == [each for each, _ in found], name
    page.page.click("#tab-JSON")
    shown = json.loads(page.page.text_content("#code code"))
    assert [each["class"] for each in shown["predictions"]] == [each for each, _ in found]


def test_the_camera_is_answered_until_it_is_stopped(page: Tab) -> None:
    page.page.select_option("select[name=model]", "classifier")
    page.page.get_by_role("button", name="Camera").click()
    page.until("() => document.querySelector('#picture').ariaLabel?.startsWith('camera.jpg')")
    before = page.metric("answered")
    page.until(
        "before => Number(document.querySelector('[data-metric=answered]').textContent) > before + 3", int(before)
    )
    page.page.get_by_role("button", name="Camera").click()
    page.wait_for("#camera[aria-pressed=false]")


# --- figures ----------------------------------------------------------------------------------------------------------


def test_figures_move_with_what_is_answered(page: Tab, page_server: Served, pictures: Path) -> None:
    page.until("() => /^[0-9]+$/.test(document.querySelector('[data-metric=answered]').textContent)")
    before = int(page.metric("answered"))
    for _ in range(5):
        page_server.infer("classifier", pictures / "chelsea.png")
    page.until("wanted => Number(document.querySelector('[data-metric=answered]').textContent) >= wanted", before + 5)
    assert float(page.metric("p50")) > 0
    workers = [
        name for name in page_server.server.children() if name.split("-")[0] in ("decode", "infer", "postprocess")
    ]
    assert int(page.metric("workers")) == len(workers)
    assert page.metric("dropped") == "0"
    assert page.page.get_attribute("#pipeline svg", "aria-label").startswith("Pipeline: ")
    assert page.page.text_content("#pipeline .rest") == "Not drawn: 1 more model, listed below."


def preview(page_server: Served, source: str) -> bytes:
    with urllib.request.urlopen(f"{page_server.address}/page/source?name={quote(source)}", timeout=60) as answer:
        return bytes(answer.read())


def test_a_live_source_is_shown_with_its_answers(page: Tab, page_server: Served, pictures: Path) -> None:
    picture = cv2.imread(str(pictures / "coffee.png"))
    jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
    camera = "front door <b>"
    page_server.camera(camera, jpeg)
    card = page.page.locator(".source", has_text=camera)
    card.scroll_into_view_if_needed()
    while not card.locator("img").is_visible():  # each look at the page takes a frame that comes while it waits
        assert page_server.camera(camera, jpeg)["predictions"][0]["class"] == "cup"
        page.page.wait_for_timeout(100)
    size = card.locator("img").evaluate(
        "async image => (await image.decode(), [image.naturalWidth, image.naturalHeight])"
    )
    assert size == [384, 256]
    drawn = cv2.imdecode(np.frombuffer(preview(page_server, camera), np.uint8), cv2.IMREAD_COLOR)
    plain = cv2.resize(picture, (384, 256), interpolation=cv2.INTER_AREA)
    changed = np.abs(drawn.astype(int) - plain).max(2) > 80
    assert 0.005 < changed.mean() < 0.2  # boxes and labels, and otherwise the frame
    assert card.locator("b").inner_text() == camera


def test_what_a_client_counts_at_lines_and_zones_is_on_the_card_of_its_source(page: Tab, page_server: Served) -> None:
    counts = [["in", "<b>", "person", 3], ["in", "<b>", "dog", 1], ["out", "<b>", "person", 2]]
    counts += [["entered", "yard", "car", 4], ["present", "yard", "car", 0]]
    report = {"v": 1, "type": "report", "id": 1, "source": "counted", "state": "live", "counts": counts}
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.rcvtimeo = 60_000
        socket.connect(f"ipc://{page_server.server.folder}/door")
        socket.send(msgpack.packb(report))
        assert msgpack.unpackb(socket.recv())["type"] == "result"
    card = page.page.locator(".source", has_text="counted")
    page.until("() => [...document.querySelectorAll('.counts')].some((text) => text.textContent)")
    assert card.locator(".counts").inner_text() == "<b>: in 3 person, 1 dog; out 2 person · yard: in all 4 car"


def test_a_model_is_unloaded_and_loaded_again(page: Tab) -> None:
    card = page.page.locator('[data-model="reader"]')
    card.get_by_role("button", name="Unload").click()
    page.wait_for('[data-model="reader"] .badge.unloaded')
    page.wait_for("select[name=model] option[value=reader]", state="detached")
    card.get_by_role("button", name="Load again").click()
    page.wait_for('[data-model="reader"] .badge.ready')
    page.wait_for("select[name=model] option[value=reader]", state="attached")
    assert page.page.locator('[data-model="reader"] .badge.unloaded').count() == 0


def test_a_chain_is_loaded_unloaded_and_loaded_again(page: Tab) -> None:
    form = page.page.locator("#load")
    form.locator("input[name=name]").fill("new")
    form.locator("input[name=path]").fill("detector(class_filter=cup) > classifier")
    form.get_by_role("button", name="Load").click()
    page.wait_for('[data-model="new"] .badge.ready')
    card = page.page.locator('[data-model="new"]')
    assert card.locator(".chain").inner_text() == "detector(class_filter=cup) > classifier"
    page.wait_for("select[name=model] option[value=new]", state="attached")
    card.get_by_role("button", name="Unload").click()
    page.wait_for('[data-model="new"] .badge.unloaded')
    card.get_by_role("button", name="Load again").click()
    page.wait_for('[data-model="new"] .badge.ready')
    card.get_by_role("button", name="Unload").click()
    page.wait_for('[data-model="new"] .badge.unloaded')


# --- trouble, and how it looks ----------------------------------------------------------------------------------------


def test_what_is_no_picture_is_refused_by_name(shared: Tab, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    shared.page.select_option("select[name=model]", "detector")
    shared.page.set_input_files("input[type=file]", str(tmp_path / "notes.png"))
    shared.wait_for("[role=alert]:visible")
    assert "BAD_INPUT" in shared.page.text_content("[role=alert]")
    upload(shared, "detector", pictures / "coffee.png")
    shared.wait_for("[role=alert]", state="hidden")


def test_it_fits_a_phone_and_follows_the_systems_colours(chromium: Any, page_server: Served, pictures: Path) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    with tab(chromium, page_server.address, viewport={"width": 390, "height": 844}, color_scheme="dark") as phone:
        phone.wait_for("html[data-state=live]")
        upload(phone, "detector", pictures / "astronaut.png")
        assert phone.page.evaluate("document.documentElement.scrollWidth") <= 390
        dark = phone.page.evaluate(background)
        phone.page.click("#theme")
        assert phone.page.evaluate(background) != dark
        unnamed = phone.page.evaluate(
            "[...document.querySelectorAll('button, input, select, [role=img], [role=group]')].filter(e =>"
            " !(e.ariaLabel || e.textContent.trim() || e.labels?.length || e.ariaHidden)).map(e => e.outerHTML)"
        )
        assert unnamed == []
        assert phone.complaints == []
