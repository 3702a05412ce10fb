"""All documents: links lead somewhere, named files exist, commands and settings are real, nothing is forgotten."""

from __future__ import annotations

import re

import click
import pytest
from msgspec import Struct

from parallel_infer.cli import main
from parallel_infer.config.fields import MODEL_FIELDS, SERVER_FIELDS
from parallel_infer.ipc import messages
from tests.docs.commands import options_of
from tests.docs.pages import ROOT, Page, documents

PLACES = ["README.md", "docs/architecture.md", "docs/operations.md", "docs/protocol.md", "docs/reliability.md"]
WIDE = {f"docs/{name}.md" for name in ("clients", "frigate", "http", "page")}  # addresses and snippets of others
TO_BE_WRITTEN = {"stages/tasks/count.py", "stages/families/known/spots.py"}  # by the reader of docs/models.md
OF_OTHER_PROGRAMS = {
    *("--cpu", "--gpu", "--dev"),  # scripts/build.sh
    *("--cpus", "--shm-size", "--gpus", "--ipc", "--memory", "--network", "--pids-limit", "--read-only"),  # Docker
    *("--cap-drop", "--security-opt", "--stop-timeout", "--tmpfs", "--user", "--from-file"),  # Docker, kubectl
    *("--data-binary", "--no-deps", "--wheel-dir", "--find-links"),  # curl, pip
    *("--concurrency-range", "--measurement-request-count", "--measurement-mode", "--input-data"),  # perf_analyzer
    *("--dynamic", "--include", "--output-name", "--task", "--weights", "--end2end"),  # exporters
    *("--decode", "--capacity", "--timeout"),  # YOLOX, Mosec
    *("--address", "--dashboard-host", "--head", "--port", "--resources"),  # ray start
}
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


@pytest.mark.parametrize("name", documents())
def test_named_files_exist(name: str) -> None:
    named = re.findall(
        r"`((?:parallel_infer|stages|tests|benchmarks|examples|scripts|docs)/[\w./]+\.\w+)`", Page.read(name).text
    )
    named = [path for path in named if "NAME" not in path and path not in TO_BE_WRITTEN]

    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_readme_lists_every_command() -> None:
    documented = Page.read("README.md").section("Commands").column("Command", "What it does")

    assert sorted(documented) == sorted(main.list_commands(click.Context(main)))


def every_option() -> set[str]:
    """All long options of our commands and of the scripts of the checkout."""
    scripts = [path for path in (ROOT / "benchmarks").rglob("*.py") if ".venvs" not in path.parts]  # of the peers
    found = {option for script in scripts for option in options_of(script)}
    found |= set(re.findall(r"^ +(--[a-z][a-z-]+)", (ROOT / "container" / "build.sh").read_text("utf-8"), re.MULTILINE))
    commands: list[click.Command] = [main]
    while commands:
        command = commands.pop()
        found |= {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
        if isinstance(command, click.Group):
            context = click.Context(command)
            children = [command.get_command(context, name) for name in command.list_commands(context)]
            commands += [child for child in children if child is not None]
    return found | {"--help"}


def test_named_options_exist() -> None:
    """What reads as an option, anywhere, is one; those of other programs are named here."""
    known = every_option() | OF_OTHER_PROGRAMS
    unknown = {
        f"{name}: {option}"
        for name in documents()
        for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+[a-z0-9]", Page.read(name).text)
        if option not in known
    }
    assert unknown == set()


def test_named_settings_of_operations_exist() -> None:
    text = Page.read("docs/operations.md").section("What to do when").text
    named = set(re.findall(r"`([a-z]+_[a-z_]+)`", text))

    assert {"queue_size", "shared_memory_mb"} <= named
    assert named <= {
        *SERVER_FIELDS,
        *MODEL_FIELDS,
        "infer_many",
        "retry_after",
        "batch_wait",
        "max_detections",
        "mask_decode_mode",
    }


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


@pytest.mark.parametrize("name", PLACES)
def test_paths_are_those_of_every_machine(name: str) -> None:
    absolute = re.findall(r"(?<![\w./*)])(/[a-z]+)", Page.read(name).text)

    assert set(absolute) <= {"/dev", "/tmp", "/var"}


@pytest.mark.parametrize("name", [name for name in documents() if name not in WIDE])
def test_lines_are_short(name: str) -> None:
    lines = Page.read(name).text.splitlines()

    assert [line for line in lines if len(line) > 120 and line[:1] not in ("|", "{")] == []
