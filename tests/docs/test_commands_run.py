"""The commands of the documents that end soon, run as they stand: pictures and models get the names they have there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import cv2
import pytest
from click.testing import CliRunner

from parallel_infer.cli import main
from parallel_infer.tools.local_server import LocalServer
from tests.docs.commands import in_documents
from tests.docs.pages import documents

RUN = {"infer", "inspect", "status", "health", "keys", "run-async"}
MODEL = "detector"
CONFIG = f'[models.street]\npath = "zoo:{MODEL}"\n'
LONG = {"bench": ["--seconds", "0.3"], "trace": ["--seconds", "1"], "top": ["--once"], "stream": []}
ELSEWHERE = ("/dev/", "rtsp://", "-")  # sources that a test has not
PLACEHOLDERS = re.compile(r"\b(NAME|PATH|FILE|FOLDER|COMMAND|MODEL\.onnx)$")


def complete_commands() -> list[tuple[str, ...]]:
    """Each command of ours of the documents, once; those that a sentence only mentions lack what they are about."""
    found: dict[tuple[str, ...], None] = {}
    for _, (program, *words) in in_documents(*documents()):
        if program.endswith("run.sh") and (not words or words[0].startswith("-")):
            found["serve", *words] = None
        elif program.endswith(("parallel-infer", "run.sh")) and words and not any(map(PLACEHOLDERS.search, words)):
            found[tuple(words)] = None
    return list(found)


def quick_commands() -> list[tuple[str, ...]]:
    """Those that end by themselves, and soon."""
    least = {"infer": ".jpg", "inspect": ".onnx", "run-async": ".onnx"}
    return [
        words
        for words in complete_commands()
        if words[0] in RUN and any(word.endswith(least.get(words[0], "")) for word in words[1:] or [""])
    ]


def long_commands() -> list[tuple[str, ...]]:
    """Those that measure or watch for a while, shortened; in the order of the pages, as one may read another's file."""
    found: dict[tuple[str, ...], None] = {}
    for words in complete_commands():
        sources = words[2:] if words[0] == "stream" else ()
        if words[0] in LONG and "..." not in words and not any(word.startswith(ELSEWHERE[:2]) for word in sources):
            if words[0] == "stream" and (not sources or "-" in sources):
                continue
            found[(words[0], *LONG[words[0]], *words[1:])] = None
    return list(found)


def configurations() -> list[tuple[str, ...]]:
    """`serve` with every set of options that the documents have."""
    shown = ("--dry-run", "--print-config")
    return sorted({tuple(w for w in words if w not in shown) for words in complete_commands() if words[0] == "serve"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, pictures: Path, zoo: Path) -> Path:
    """A folder with every picture, model and file that the commands name."""
    made = tmp_path_factory.mktemp("reader")
    (made / "repository").mkdir()
    shutil.copy(zoo / f"{MODEL}.onnx", made / "repository" / "street.onnx")
    for words in complete_commands():
        for word in words:
            name = word.rpartition("=")[2]
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(".onnx"):
                shutil.copy(zoo / f"{Path(name).stem if '/' in name else MODEL}.onnx", made / name)
            elif name.endswith(".jpg"):
                shutil.copy(pictures / "astronaut.png", made / name)
            elif name.endswith(".toml"):
                (made / name).write_text(CONFIG)
            elif name.endswith(".mp4") and word == words[-1]:
                write_video(made / name.removeprefix("realtime:"), pictures)
    return made


def write_video(path: Path, pictures: Path) -> None:
    frame = cv2.imread(str(pictures / "astronaut.png"))
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 5, frame.shape[1::-1])
    for _ in range(3):
        video.write(frame)
    video.release()


@pytest.fixture
def ran_in(folder: Path, server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PARALLEL_INFER_SERVER", server.address)
    shutil.rmtree("keys", ignore_errors=True)
    for key in folder.glob("*.key"):
        key.unlink()
    return folder


def on_this_server(words: tuple[str, ...]) -> list[str]:
    """The command for the server of the tests: without an address and a key, and with a model that it serves."""
    text = re.sub(r" --(server|key) \S+", "", " " + " ".join(words)).split()
    if text[:1] in (["infer"], ["stream"]):
        text = [MODEL if word == "street" else word for word in text]
    return text


@pytest.mark.parametrize("words", quick_commands(), ids=" ".join)
def test_it_runs(words: tuple[str, ...], ran_in: Path) -> None:
    if words == ("keys",):
        words = ("keys", "--help")
    if words[:2] == ("keys", "list"):
        succeeds("keys", "new", "somebody")
    succeeds(*on_this_server(words))


@pytest.mark.parametrize("words", configurations(), ids=" ".join)
def test_it_is_a_configuration(words: tuple[str, ...], ran_in: Path) -> None:
    if "--keys" in words:
        succeeds("keys", "new", "somebody")
    repository = str(ran_in / "repository")
    succeeds(*(repository if word == "/models" else word for word in words), "--print-config")


@pytest.mark.slow  # loads a model; looks into every model
def test_models_are_changed_and_the_machine_is_looked_at(ran_in: Path) -> None:
    changes = [words for words in complete_commands() if words[0] == "models" and words[-1] != "models"]
    assert {words[1] for words in changes} == {"list", "load", "unload"}
    for words in sorted(changes, key=lambda words: words[1] == "unload"):
        succeeds(*words)
    succeeds("doctor")
    succeeds("serve", "--dry-run")


@pytest.mark.slow  # they measure: each starts servers of its own
@pytest.mark.timeout(1800)
def test_what_takes_a_while_runs(ran_in: Path, server: LocalServer) -> None:
    commands = long_commands()
    assert {words[0] for words in commands} == set(LONG)
    for words in commands:
        if "--server" in words:  # of bench, where it means not to start one
            succeeds(*(server.address if word.startswith("tcp://") else word for word in words))
        else:
            succeeds(*on_this_server(words))


def succeeds(*words: str) -> None:
    result = CliRunner().invoke(main, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_something_of_each_kind_is_run() -> None:
    assert {words[0] for words in quick_commands()} == RUN
    assert len(configurations()) > 8
