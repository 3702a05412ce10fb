"""docs/clients.md: every snippet runs as it stands, with the client from its package."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.docs.pages import Page
from tests.doors.clients import environments
from tests.doors.clients.conftest import Doors
from tests.doors.clients.environments import OURS, Environment

pytestmark = pytest.mark.clients
PAGE = Page.read("docs/clients.md")
PYTHON, SHELL = "python", ""


class Snippet(NamedTuple):
    """Where it stands, how it is run, and what it must print."""

    heading: str
    language: str
    environment: Callable[[], Environment]
    prints: str


def ours() -> Environment:
    return OURS


SNIPPETS = [
    Snippet("curl", SHELL, ours, r'"class":"person"'),
    Snippet("tritonclient over HTTP", PYTHON, ours, r"0\.7.*\[\[0\]\]\s\(1, 84, 3549\)\s\[\[b'[\d.]+:\d+:"),
    Snippet("tritonclient over gRPC", PYTHON, ours, r"0\.7.*\[\[0\]\]\s(\('[012]', \d\)\s){3}"),
    Snippet("tritonclient with asyncio", PYTHON, ours, r"\[([1-9]), \1, \1, \1\]"),
    Snippet("imagezmq", PYTHON, ours, r"\['person'.*\]\s\['person'.*\]"),
]
SEPARATE = [
    Snippet("KServe", PYTHON, environments.kserve, r"(?s)('boxes': \(1, \d, 4\).*){2}"),
    Snippet("Ultralytics", PYTHON, environments.ultralytics, r"(?s)('name': 'person'.*){2}"),
    Snippet("Roboflow's inference SDK", PYTHON, environments.roboflow, r"(?s)('class': 'person'.*){4}"),
    Snippet("Roboflow's inference SDK", PYTHON, environments.roboflow_before_1, r"(?s)('class': 'person'.*){4}"),
    Snippet("supervision", PYTHON, environments.roboflow, r"\(1, 512, 512\) \['person'\]\s\(1, 17, 2\)"),
    Snippet("perf_analyzer", SHELL, environments.perf_analyzer, r"(?s)(throughput: [1-9].*){4}"),
]


def run(snippet: Snippet, doors: Doors, folder: Path) -> None:
    code = doors.in_place_of_documented("\n".join(PAGE.section(snippet.heading).blocks(snippet.language)))
    code = code.replace("-s 80", "-s 9999")  # perf_analyzer: on a busy machine no two windows are alike
    environment = snippet.environment()
    printed = (environment.run if snippet.language == PYTHON else environment.shell)(code, folder)
    assert re.search(snippet.prints, printed), printed


def test_every_section_with_code_is_run() -> None:
    sections = re.findall(r"^## (.+)$", PAGE.text, re.MULTILINE)
    with_code = {heading for heading in sections if "```" in PAGE.section(heading).text}
    assert with_code == {snippet.heading for snippet in SNIPPETS + SEPARATE} | {"Frigate"}  # which has no program


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.heading)
def test_snippet(doors: Doors, street: Path, snippet: Snippet) -> None:
    run(snippet, doors, street)
    if snippet.heading == "curl":
        assert (street / "drawn.jpg").read_bytes().startswith(b"\xff\xd8")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("snippet", SEPARATE, ids=lambda snippet: f"{snippet.heading}-{snippet.environment.__name__}")
def test_snippet_in_an_environment_of_its_own(doors: Doors, street: Path, snippet: Snippet) -> None:
    run(snippet, doors, street)
