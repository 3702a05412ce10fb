"""The page of a server with keys, and what it does while its server is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from parallel_infer.cli import main
from tests.doors.browser import tab
from tests.doors.page_server import SERVER, model, serving
from tests.doors.test_page import upload
from tests.engine.serving import free_port
from tests.families.tiny_graphs import zeros

pytest.importorskip("aiohttp", reason="the HTTP door needs the extra http")


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> None:
    """Instead of that of all tests: a browser's processes take a moment to go."""


def token(folder: Path, name: str, *further: str) -> str:
    told = ["keys", "new", name, *further, "--dir", str(folder / "keys"), "--out", str(folder / f"{name}.key")]
    assert CliRunner().invoke(main, told).exit_code == 0
    lines = (folder / f"{name}.key").read_text().splitlines()
    return next(line.partition("= ")[2] for line in lines if line.startswith("token"))


def test_it_asks_for_a_key_and_outlives_its_server(chromium: Any, short_folder: Path, pictures: Path) -> None:
    camera, boss = token(short_folder, "camera"), token(short_folder, "boss", "--manage")
    path = model({"probs": zeros(4) + 0.25}, short_folder / "tiny.onnx", task="classify", names="['a', 'b', 'c', 'd']")
    toml = SERVER.partition("[models.detector]")[0] + f'keys = "{short_folder}/keys"\n[models.tiny]\npath = "{path}"\n'
    port = free_port()
    with tab(chromium, "about:blank") as page:
        with serving(toml, port):
            page.page.goto(f"http://127.0.0.1:{port}")
            page.wait_for("#key-dialog[open]")
            assert page.complaints == []  # it asks before it tries
            for key, then in (("wrong", "#key-wrong:visible"), (camera, "html[data-state=live]")):
                page.wait_for("#key-dialog[open]")
                page.page.fill("#key-dialog input", key)
                page.page.keyboard.press("Enter")
                page.wait_for(then)
            assert len(upload(page, "tiny", pictures / "coffee.png")) == 4
            page.page.click("[data-model=tiny] button.danger")
            page.wait_for("[role=alert]:visible")
            assert "UNAUTHORIZED" in page.page.text_content("[role=alert]")
            page.page.evaluate("window.loadedOnce = true")
            page.page.evaluate(f"sessionStorage.setItem('parallel-infer-key', {boss!r})")
        page.wait_for("html[data-state=lost]")
        with serving(toml, port):
            page.wait_for("html[data-state=live]")
            assert page.page.evaluate("window.loadedOnce")
            assert len(upload(page, "tiny", pictures / "astronaut.png")) == 4
            with tab(chromium, f"http://127.0.0.1:{port}/#key={camera}", ready="html[data-state=live]") as phone:
                assert phone.page.url == f"http://127.0.0.1:{port}/"  # whoever looks over a shoulder does not see it
                assert phone.page.evaluate("history.length") == 2  # about:blank, and the page without the key
                assert phone.complaints == []
            page.page.click("[data-model=tiny] button.danger")
            page.wait_for("[data-model=tiny] .badge.unloaded")
