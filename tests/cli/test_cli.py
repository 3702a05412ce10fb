"""The command line as a whole: quick to import, complete, and clear about mistakes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from parallel_infer import cli
from parallel_infer.cli import COMMANDS, main
from parallel_infer.errors import ConfigError, UnknownModel
from parallel_infer.model_files.location import shipped_models

HEAVY = {"numpy", "cv2", "onnxruntime", "onnx", "zmq", "rich", "msgspec", "multiprocessing", "asyncio"}
_WITH_LITTLE_MEMORY = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
from parallel_infer.cli import main
main()
"""
EXISTING = main.list_commands(click.Context(main))


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh Python has loaded after `code`."""
    script = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(ran.stdout.splitlines()[-1].split())


def test_importing_and_help_load_nothing_heavy() -> None:
    assert not loaded_by("import parallel_infer.cli") & HEAVY
    assert not loaded_by("from parallel_infer.cli import main\nmain(['--help'], standalone_mode=False)") & HEAVY


def test_help_of_serve_loads_no_numpy() -> None:
    code = "from parallel_infer.cli import main\nmain(['serve', '--help'], standalone_mode=False)"
    assert not loaded_by(code) & (HEAVY - {"msgspec"})


def test_help_lists_what_exists_and_nothing_else() -> None:
    text = CliRunner().invoke(main, ["--help"]).output
    assert {"serve", "infer", "models", "status", "doctor"} <= set(EXISTING)
    for name, summary in COMMANDS.items():
        assert (f"  {name} " in text and summary in text) == (name in EXISTING)


@pytest.mark.parametrize("name", EXISTING)
def test_every_command_has_help(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output
    assert "[default: ]" not in result.output


def test_a_command_without_a_module_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "not-yet", "Some day.")
    assert "not-yet" not in CliRunner().invoke(main, ["--help"]).output
    result = CliRunner().invoke(main, ["not-yet"])
    assert result.exit_code == 2
    assert "No such command 'not-yet'" in result.output


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(module: str) -> None:
        raise ModuleNotFoundError("No module named 'starlette.routing'", name="starlette.routing")

    monkeypatch.setattr(cli, "import_module", fail)
    result = CliRunner().invoke(main, ["status"])
    assert result.exit_code == 1
    assert "`status` needs the Python package starlette, which is not installed" in result.output


def test_a_fault_of_our_own_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(module: str) -> None:
        raise ModuleNotFoundError("No module named 'parallel_infer.x'", name="parallel_infer.x")

    monkeypatch.setattr(cli, "import_module", fail)
    assert isinstance(CliRunner().invoke(main, ["status"]).exception, ModuleNotFoundError)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [(ConfigError("no such thing"), 2, "Error: no such thing"), (UnknownModel("x"), 1, "Error: UNKNOWN_MODEL: x")],
)
def test_named_errors_are_one_line(error: Exception, code: int, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr(main, "get_command", lambda ctx, name: failing)
    result = CliRunner().invoke(main, ["status"])
    assert (result.exit_code, result.stderr.strip()) == (code, text)


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "command",
    [
        *("bench --seconds", "demo --seconds", "health --timeout", "infer d x --conf", "inspect x --iou"),
        *("models load d x --timeout", "run-async --dry-run --model-path x --timeout"),
        *("stream d x --fps", "stream d x --silence", "stream d x --max-age-ms", "top --interval", "trace --seconds"),
        *("tune x --p99-ms",),
    ],
)
def test_what_is_no_number_is_refused_by_every_option(command: str, number: str) -> None:
    result = CliRunner().invoke(main, [*command.split(), number])
    option = command.rpartition(" ")[2]
    assert (result.exit_code, f"'{option}'" in result.stderr, number in result.stderr) == (2, True, True), result.output


@pytest.mark.parametrize(
    "words",
    [
        *(["infer", "d", ""], ["infer", "--model", "d", ""], ["infer", "", "a.jpg"], ["infer", "--model", "", "a.jpg"]),
        *(["stream", "d", ""], ["infer", "d", "a.jpg", "--save", ""], ["demo", "--output", ""], ["trace", "-o", ""]),
        *(["keys", "new", "a", "--dir", ""], ["keys", "new", "a", "--out", ""], ["inspect", ""]),
    ],
    ids=" ".join,
)
def test_an_empty_path_is_not_taken_for_the_folder_one_is_in(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, words)
    assert not list(tmp_path.iterdir())
    assert result.exit_code == 2
    assert "empty; is a variable of the shell not set?" in result.stderr


@pytest.mark.parametrize("command", ["inspect", "run-async --dry-run --model-path"])
def test_a_model_that_is_no_file_is_refused_and_not_waited_for(command: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    for path in (tmp_path / "pipe.onnx", Path("/dev/zero")):
        ran = subprocess.run(
            [sys.executable, "-c", _WITH_LITTLE_MEMORY, *command.split(), path],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert ran.returncode in (1, 2), ran.stderr
        assert "no file" in ran.stderr or "no model file" in ran.stderr
        assert len(ran.stderr.splitlines()) == 1


def test_a_shipped_model_is_inspected_by_its_name() -> None:
    named, given = (
        CliRunner().invoke(main, ["inspect", path]) for path in ("zoo:detector", shipped_models()["detector"])
    )
    assert named.exit_code == 0
    assert named.output == given.output
    assert "did you mean 'detector'?" in CliRunner().invoke(main, ["inspect", "zoo:detecter"]).stderr


def test_it_runs_as_a_module() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "parallel_infer", "--version"], capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith("parallel-infer")
