"""All documents: links lead somewhere, named files exist, commands and settings are real, nothing is forgotten."""

from __future__ import annotations

import re
import shlex

import click
import pytest
from msgspec import Struct

from parallel_infer.cli import main
from parallel_infer.config.fields import MODEL_FIELDS, SERVER_FIELDS
from parallel_infer.ipc import messages
from tests.docs.pages import ROOT, Page

OWN = ["README.md", "docs/architecture.md", "docs/operations.md", "docs/protocol.md", "docs/reliability.md"]
LARGEST_PICTURE = 400_000  # bytes
PROGRAMS = ("parallel-infer", ".venv/bin/parallel-infer", "./scripts/run.sh")


def pages() -> list[str]:
    return sorted({*OWN, *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))})


def commands(page: Page) -> list[list[str]]:
    """Every command of ours in code, as the words after the program's name."""
    texts = [line for block in page.blocks("") for line in block.splitlines()]
    texts += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", page.text, flags=re.DOTALL | re.MULTILINE))
    found = []
    for text in texts:
        program, *words = shlex.split(text, comments=True) if text.startswith(PROGRAMS) else [""]
        if program == "./scripts/run.sh" and (not words or words[0].startswith("-")):
            words = ["serve", *words]
        if program in PROGRAMS and words[:1] != ["COMMAND"]:
            found.append(words)
    return found


@pytest.mark.parametrize("name", pages())
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


@pytest.mark.parametrize("name", OWN)
def test_commands_and_their_options_exist(name: str) -> None:
    for words in commands(Page.read(name)):
        command: click.Command = main
        context = click.Context(command)
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            found = command.get_command(context, words.pop(0))
            assert found is not None, f"{name}: {words}"
            command = found
        options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word for word in words if re.match(r"--\w", word)} <= options, f"{name}: {command.name} {words}"


def test_commands_are_found_in_code() -> None:
    page = Page(ROOT, "```\n./scripts/run.sh --bind x  # y\n```\nsee `parallel-infer models list`, not `serve`\n")

    assert commands(page) == [["serve", "--bind", "x"], ["models", "list"]]


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
    assert {f"docs/images/{path.name}" for path in pictures} <= set(Page.read("README.md").links())


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

    assert [row[0] for row in rows] == ["supervisor", "gateway", "dispatcher", *STAGES]


@pytest.mark.parametrize("name", OWN)
def test_paths_are_those_of_every_machine(name: str) -> None:
    absolute = re.findall(r"(?<![\w./*)])(/[a-z]+)", Page.read(name).text)

    assert set(absolute) <= {"/dev", "/tmp", "/var"}


@pytest.mark.parametrize("name", OWN)
def test_lines_are_short(name: str) -> None:
    lines = Page.read(name).text.splitlines()

    assert [line for line in lines if len(line) > 120 and line[:1] not in ("|", "{")] == []
