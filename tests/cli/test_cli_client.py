"""The commands that talk to a server, against a real one."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from parallel_infer import Answer, Client
from parallel_infer.cli import main
from parallel_infer.errors import DeadlineExceeded, Poison
from parallel_infer.tools.local_server import local_server


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server of the shipped detector and classifier; its start and its end are checked."""
    models = ["--model", "detector=zoo:detector", "--model", "classifier=zoo:classifier"]
    with local_server(*models, "--shared-memory-mb", "64", "--threads", "1", "--max-batch-size", "2") as started:
        assert started.models == ("detector", "classifier")
        yield started.address
    assert started.process.returncode == 0


@pytest.fixture
def ask(server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command against the server, whose address it has from the environment."""
    monkeypatch.setenv("PARALLEL_INFER_SERVER", server)

    def run(*arguments: str | Path, input: bytes | None = None) -> Result:  # noqa: A002
        return CliRunner().invoke(main, [str(argument) for argument in arguments], input=input)

    return run


def test_infer_prints_a_table_per_picture(ask: Any, pictures: Path) -> None:
    result = ask("infer", "--model", "detector", pictures / "astronaut.png", pictures / "chelsea.png")
    assert result.exit_code == 0, result.stderr
    first, second, _ = result.stdout.split("\n\n")
    assert first.startswith(f"{pictures / 'astronaut.png'}: ")
    assert first.splitlines()[1].split() == ["class", "confidence", "x1", "y1", "x2", "y2"]
    assert first.splitlines()[2].split()[0] == "person"
    assert "cat" in second


def test_infer_takes_the_model_first_as_people_type_it(ask: Any, pictures: Path) -> None:
    result = ask("infer", "classifier", "--json", pictures / "chelsea.png", pictures / "coffee.png")
    assert result.exit_code == 0, result.stderr
    assert len(result.stdout.splitlines()) == 2
    result = ask("infer", pictures / "chelsea.png")
    assert result.exit_code == 2
    assert "say which one first" in result.stderr
    result = ask("infer", "classifer", pictures / "chelsea.png")
    assert result.exit_code == 1
    assert "classifer" in result.stderr


def test_infer_takes_a_picture_from_standard_input(ask: Any, pictures: Path, tmp_path: Path) -> None:
    content = (pictures / "chelsea.png").read_bytes()
    named = ask("infer", "classifier", "--json", pictures / "chelsea.png")
    piped = ask("infer", "classifier", "--json", "--save", tmp_path / "out", "-", input=content)
    assert piped.exit_code == 0, piped.stderr
    found, expected = json.loads(piped.stdout), json.loads(named.stdout)
    assert found["top"] == expected["top"]
    assert found["file"] == "/dev/stdin"
    assert cv2.imread(str(tmp_path / "out" / "stdin.png")).shape == cv2.imread(str(pictures / "chelsea.png")).shape
    for arguments, given, why in (
        (["-", "-"], content, "cannot be read twice"),
        (["-"], b"", "empty"),
        (["-"], b"no picture", "BAD_INPUT"),
    ):
        result = ask("infer", "classifier", *arguments, input=given)
        assert result.exit_code != 0
        assert why in result.stderr + result.stdout
        assert "Traceback" not in result.stderr


def test_infer_of_a_folder_as_json_lines(ask: Any, pictures: Path) -> None:
    result = ask("infer", "--model", "classifier", "--json", pictures)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    names = [Path(line["file"]).name for line in lines]
    assert names == sorted(path.name for path in pictures.glob("*.png"))
    assert all(line["top"] == line["predictions"][0]["class"] for line in lines)


def test_infer_as_csv(ask: Any, pictures: Path) -> None:
    result = ask("infer", "--model", "detector", "--csv", pictures / "astronaut.png")
    rows = list(csv.DictReader(result.stdout.splitlines()))
    assert rows[0]["class"] == "person"
    assert 0 <= float(rows[0]["x1"]) < float(rows[0]["x2"]) <= 512
    result = ask("infer", "--model", "classifier", "--csv", pictures / "chelsea.png")
    rows = list(csv.DictReader(result.stdout.splitlines()))
    assert float(rows[0]["confidence"]) >= float(rows[1]["confidence"])
    assert rows[0]["x1"] == ""


def test_a_file_that_fails_does_not_stop_the_others(ask: Any, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    files = [tmp_path / "none.png", tmp_path / "text.png", pictures / "coffee.png"]
    result = ask("infer", "--model", "detector", "--json", *files)
    assert result.exit_code == 1
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line.get("error", {}).get("code") for line in lines] == ["BAD_INPUT", "BAD_INPUT", None]
    assert lines[2]["predictions"]
    result = ask("infer", "--model", "detector", "--csv", *files)
    assert result.exit_code == 1
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == ["BAD_INPUT", "BAD_INPUT"]


@pytest.mark.parametrize("form", ["--csv", "--json", "--conf=0.5"])
def test_what_a_fan_or_a_chain_lacks_is_told_and_makes_the_exit_code_1(
    ask: Any, pictures: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    boxes = {"boxes": np.zeros((3, 4), np.float32), "scores": np.ones(3, np.float32), "classes": np.zeros(3, np.int32)}
    chain, fan = Answer("detect", "plates", boxes, {0: "plate"}), Answer("fan", "plates+pose", {})
    chain.children = [{"reader": Poison("it killed two workers")} for _ in range(3)]
    fan.parts = {"plates": chain, "pose": DeadlineExceeded("too late")}
    monkeypatch.setattr(Client, "infer_many", lambda *given, **options: [fan])
    picture = pictures / "coffee.png"
    result = ask("infer", "--model", "plates+pose", form, picture)
    assert result.exit_code == 1
    if form == "--json":
        assert json.loads(result.stdout)["parts"]["pose"]["error"]["code"] == "DEADLINE_EXCEEDED"
        assert result.stderr == ""
    else:
        assert result.stderr.splitlines() == [
            f"{picture} 0 reader: POISON: it killed two workers (and 2 more)",
            f"{picture} pose: DEADLINE_EXCEEDED: too late",
        ]


def test_options_change_the_answer(ask: Any, pictures: Path) -> None:
    picture = pictures / "astronaut.png"

    def found(*options: str) -> list[dict[str, Any]]:
        result = ask("infer", "--model", "detector", "--json", picture, *options)
        assert result.exit_code == 0, result.output
        predictions: list[dict[str, Any]] = json.loads(result.stdout)["predictions"]
        return predictions

    assert len(found("--conf", "0.01")) > len(found("--conf", "0.6")) > 0
    assert len(found("--conf", "0.01", "--option", "max_detections=1")) == 1
    chairs = found("--conf", "0.01", "--option", 'class_filter=["chair"]')
    assert {prediction["class"] for prediction in chairs} == {"chair"}
    result = ask("infer", "--model", "detector", picture, "--option", "no_such=1")
    assert result.exit_code == 1
    assert "no_such" in result.stderr


def test_pictures_are_drawn_under_names_of_their_own(ask: Any, pictures: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "astronaut.png").write_bytes((pictures / "astronaut.png").read_bytes())
    saved = tmp_path / "saved"
    files = [pictures / "astronaut.png", other / "astronaut.png"]
    result = ask("infer", "--model", "detector", "--save", saved, *files)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in saved.iterdir()) == ["astronaut-2.png", "astronaut.png"]
    alone = tmp_path / "seen.png"
    for _ in range(2):  # what was drawn before is drawn anew
        result = ask("infer", "--model", "detector", "--save", alone, files[0])
        assert result.exit_code == 0, result.output
    assert alone.read_bytes() == (saved / "astronaut.png").read_bytes()
    drawn, original = cv2.imread(str(saved / "astronaut.png")), cv2.imread(str(files[0]))
    assert drawn is not None
    assert original is not None
    assert drawn.shape == original.shape
    assert np.any(drawn != original)


def test_what_every_picture_would_be_told_is_said_once(ask: Any, pictures: Path) -> None:
    result = ask("infer", "--model", "nobody", pictures)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: UNKNOWN_MODEL: ")
    assert len(result.stderr.splitlines()) == 1


def test_status_shows_models_and_workers(ask: Any) -> None:
    told = json.loads(ask("status", "--json").stdout)
    assert set(told["models"]) == {"detector", "classifier"}
    text = ask("status").stdout
    for expected in ("detector", "classifier", "workers", "decode-0", "answered", "gateway ingress"):
        assert expected in text


def test_models_are_listed(ask: Any) -> None:
    listed = {model["name"]: model for model in json.loads(ask("models", "list", "--json").stdout)}
    assert listed["detector"]["task"] == "detect"
    lines = [line.split() for line in ask("models", "list").stdout.splitlines()]
    assert lines[0][:4] == ["name", "task", "family", "classes"]
    assert [line[:2] for line in lines[1:3]] == [["detector", "detect"], ["classifier", "classify"]]
    assert {tuple(line[:2]) for line in lines[3:]} == {("evidence:", "detector:"), ("evidence:", "classifier:")}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["models", "load", "a", "b", "--option", "instancs=2"],
            "unknown setting 'instancs'; did you mean 'instances'",
        ),
        (["models", "load", "a", "b", "--option", "instances=none"], 'instances is "none"; expected a whole number'),
        (["models", "load", "a", "b", "--option", "instances"], "is not KEY=VALUE"),
        (["infer", "--model", "a", "b", "--option", "=3"], "is not KEY=VALUE"),
        (["models", "load", "a", "b", "--option", "conf=0.2", "--option", "conf=0.3"], "'conf' is given twice"),
        (["infer", "--model", "a", "b", "--option", "top=3", "--option", "top=4"], "'top' is given twice"),
        (["infer", "--model", "a", "b", "--conf", "0.2", "--option", "confidence=0.3"], "is given in two ways"),
        (["serve", "--dry-run", "--chain", "a=b > c", "--chain", "a=b > d"], "--chain: 'a' is given twice"),
        (["infer", "--model", "a"], "Missing argument"),
        (["status", "--server", "http://127.0.0.1"], "'http://127.0.0.1' is no address of a server"),
        (["status", "--key", "/nowhere"], "The key file '/nowhere' cannot be read"),
    ],
)
def test_mistakes_end_with_two(arguments: list[str], expected: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert expected in result.stderr


def test_a_folder_without_pictures_is_a_mistake(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["infer", "--model", "a", str(tmp_path)])
    assert result.exit_code == 2
    assert "holds no pictures" in result.stderr


def test_a_server_that_is_not_there(tmp_path: Path, pictures: Path) -> None:
    command = ["infer", "--server", f"ipc://{tmp_path}/none", "--model", "a", "--timeout", "0.2", str(pictures)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: SERVER_UNAVAILABLE: ")
    assert len(result.stderr.splitlines()) == 1


def test_a_command_says_after_a_second_why_it_waits_and_that_it_goes_on(tmp_path: Path) -> None:
    """The line is there long before the command ends."""
    command = [sys.executable, "-m", "parallel_infer", "infer", "--model", "m", "--timeout", "60", str(tmp_path)]
    (tmp_path / "a.png").write_bytes(b"x")
    with subprocess.Popen(
        [*command, "--server", f"ipc://{tmp_path}/nobody"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert process.poll() is None
        finally:
            process.kill()
    assert "there is no such socket" in line
    assert "Trying again for up to" in line
