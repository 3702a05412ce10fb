"""The site: built strictly, complete, found by its search, and read without a network."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from parallel_infer.cli import COMMANDS
from parallel_infer.config.fields import MODEL_FIELDS, SERVER_FIELDS
from scripts.docs_pages import commands_page
from tests.docs.pages import ROOT


def build(project: Path) -> subprocess.CompletedProcess[str]:
    """Builds the site of a project as scripts/docs.sh does."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the site is made from."""
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package, reason="the packages of the extra docs are not installed")
    folder = tmp_path_factory.mktemp("project")
    for name in ("docs", "scripts"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "mkdocs.yml", folder)
    return folder


@pytest.fixture(scope="module")
def site(project: Path) -> Path:
    built = build(project)
    assert built.returncode == 0, built.stderr
    return project / "build" / "site"


@pytest.mark.slow
def test_pages_ask_nobody_else(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    loaded = (
        r'<(?:script|img|iframe|source)[^>]+src="(https?:)?//|<link[^>]+href="(https?:)?//|@import|url\((https?:)?//'
    )
    asking = [page.name for page in pages if re.search(loaded, page.read_text("utf-8"))]
    styles = [
        path.name for path in site.rglob("*.css") if re.search(r"url\(['\"]?(https?:)?//", path.read_text("utf-8"))
    ]
    assert asking + styles == []


@pytest.mark.slow
def test_search_finds_settings_commands_and_names_from_the_code(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text("utf-8"))
    text = " ".join(f"{entry['title']} {entry['text']}" for entry in index["docs"])
    missing = [name for name in (*SERVER_FIELDS, *MODEL_FIELDS, *COMMANDS) if name not in text]
    assert missing == []
    assert {"infer_many", "run_parallel", "DeadlineExceeded", "StreamSettings"} <= set(re.findall(r"\w+", text))
    assert (site / "search" / "search_index.js").is_file()  # the index for pages that are opened from a folder


@pytest.mark.slow
@pytest.mark.parametrize("link", ["[x](nowhere.md)", "[x](models.md#nowhere)", "![x](images/nowhere.png)"])
def test_a_broken_link_ends_the_build(project: Path, link: str) -> None:
    page = project / "docs" / "glossary.md"
    before = page.read_text("utf-8")
    page.write_text(f"{before}\n{link}\n", "utf-8")
    try:
        built = build(project)
    finally:
        page.write_text(before, "utf-8")
    assert built.returncode == 1
    assert "nowhere" in built.stderr


def test_the_reference_has_every_command_with_its_options() -> None:
    page = commands_page()
    headings = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert headings == list(COMMANDS)
    assert "\n### models load\n" in page
    assert "| `--max-batch-size INTEGER RANGE` |" in page
    assert "\b" not in page
