"""All documents: links lead somewhere, named files exist, commands and settings are real, nothing is forgotten."""

from __future__ import annotations

import re

import click
import pytest
from msgspec import Struct

from parallel_infer.cli import main
from parallel_infer.config.fields import MODEL_FIELDS, SERVER_FIELDS
from parallel_infer.ipc import messages
from tests.docs.pages import ROOT, Page, documents

OWN = ["README.md", "docs/architecture.md", "docs/operations.md", "docs/protocol.md", "docs/reliability.md"]
LARGEST_PICTURE = 400_000  # bytes


@pytest.mark.parametrize("name", documents())
def test_links_lead_somewhere(name: str) -> None:
    page = Page.read(name)
    for link in page.links():
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.path.parent / path).resolve() if path else page.path
        assert target.exists(), f"{name} links to {link}"
        if anchor:
            assert anchor in Page(target, target.read_text("utf-8")).anchors(), f"{name} links to {link}"


@pytest.mark.parametrize("name", OWN)
def test_named_files_exist(name: str) -> None:
    named = re.findall(
        r"`((?:parallel_infer|stages|tests|benchmarks|examples|scripts|docs)/[\w./]+\.\w+)`", Page.read(name).text
    )
    named = [path for path in named if "NAME" not in path]

    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_readme_lists_every_command() -> None:
    documented = Page.read("README.md").section("Commands").column("Command", "What it does")

    assert sorted(documented) == sorted(main.list_commands(click.Context(main)))


@pytest.mark.parametrize("name", OWN)
def test_named_settings_exist(name: str) -> None:
    """What reads as the option of a setting is one."""
    text = Page.read(name).text
    named = set(re.findall(r"--([a-z]+(?:-[a-z]+)+)", text)) - {"dry-run", "print-config", "shm-size", "in-flight"}

    assert named <= {field.replace("_", "-") for field in (*SERVER_FIELDS, *MODEL_FIELDS)}


def test_named_settings_of_operations_exist() -> None:
    text = Page.read("docs/operations.md").section("What to do when").text
    named = set(re.findall(r"`([a-z]+_[a-z_]+)`", text))

    assert {"queue_size", "shared_memory_mb"} <= named
    assert named <= {*SERVER_FIELDS, *MODEL_FIELDS, "infer_many", "batch_wait", "max_detections", "mask_decode_mode"}


def test_pictures_are_small() -> None:
    pictures = list((ROOT / "docs" / "images").iterdir())

    assert pictures
    assert all(path.stat().st_size <= LARGEST_PICTURE for path in pictures)
    linked = {link.rpartition("/")[2] for name in documents() for link in Page.read(name).links()}
    assert {path.name for path in pictures} <= linked


def test_architecture_has_every_message() -> None:
    kinds = {
        name
        for name, kind in vars(messages).items()
        if isinstance(kind, type) and issubclass(kind, Struct) and kind.__struct_config__.tag is not None
    }
    rows = Page.read("docs/architecture.md").section("Messages").rows("Message", "From, to", "What it says")
    documented = {name for row in rows for name in re.findall(r"\b[A-Z][a-z]+(?:[A-Z][a-z]+)*\b", row[0])}

    assert len(kinds) > 30
    assert documented == kinds


def test_processes_are_those_of_the_pipeline() -> None:
    from stages.pipeline import STAGES

    rows = Page.read("docs/architecture.md").section("Processes").rows("Process", "How many", "What only it does")

    assert [row[0] for row in rows] == ["supervisor", "gateway", "dispatcher", *STAGES, "doors"]


@pytest.mark.parametrize("name", OWN)
def test_paths_are_those_of_every_machine(name: str) -> None:
    absolute = re.findall(r"(?<![\w./*)])(/[a-z]+)", Page.read(name).text)

    assert set(absolute) <= {"/dev", "/tmp", "/var"}


@pytest.mark.parametrize("name", OWN)
def test_lines_are_short(name: str) -> None:
    lines = Page.read(name).text.splitlines()

    assert [line for line in lines if len(line) > 120 and line[:1] not in ("|", "{")] == []
