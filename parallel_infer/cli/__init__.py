"""The command line: one group that knows its commands by name and imports one only when it is used.

`parallel-infer --help` and shell completion must answer at once, so nothing here imports numpy, OpenCV, ZeroMQ or ONNX
Runtime. A command is the click command named `command` of parallel_infer/cli/NAME.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from parallel_infer.cli.surroundings import surroundings
from parallel_infer.errors import ConfigError, InferError

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "serve": "Start a server.",
    "route": "Spread jobs over several servers.",
    "infer": "Ask a server about pictures.",
    "stream": "Ask a server about a live source, frame by frame.",
    "bench": "Measure a server or a model under load.",
    "run-async": "Run a model asynchronously, without a server.",
    "tune": "Find good settings for this machine and these models.",
    "inspect": "Tell what an ONNX file is and how it would be served.",
    "stop": "Let a server answer what it has admitted, and stop.",
    "status": "Show how a server is doing.",
    "top": "Watch a server.",
    "models": "List, load and unload the models of a server.",
    "doctor": "Check this machine: what is missing, too small or left over.",
    "demo": "See the whole thing work with the shipped models.",
    "quantize": "Make a smaller, faster copy of a model.",
    "keys": "Make the keys that let clients in over the network.",
    "health": "Tell by the exit code whether a server can answer.",
    "trace": "Follow jobs through the stages.",
    "deploy": "Run servers on many machines, with Ray.",
}


class BadConfiguration(click.ClickException):
    """A ConfigError, printed as one line."""

    exit_code = 2


class FailedRequest(click.ClickException):
    """An InferError, printed as one line."""

    exit_code = 1


class LazyGroup(click.Group):
    """A group whose commands are imported at first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in COMMANDS if _file(name).is_file()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS or not _file(cmd_name).is_file():
            return None
        try:
            command: click.Command = import_module(f"{__name__}.{_file(cmd_name).stem}").command
        except ModuleNotFoundError as error:
            raise _missing_package(cmd_name, error) from error
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Written from `COMMANDS`, because click would import every command for its first line."""
        rows = [(name, COMMANDS[name]) for name in self.list_commands(ctx)]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def main(self, args: Sequence[str] | None = None, *more: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """As click has it; and what the surroundings stand in the way of is one line as well."""
        with surroundings(args) if standalone_mode else contextlib.nullcontext():
            return super().main(args, *more, standalone_mode=standalone_mode, **extra)  # type: ignore[call-overload]

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise BadConfiguration(str(error)) from error
        except InferError as error:
            raise FailedRequest(f"{error.code}: {error}") from error


def _file(name: str) -> Path:
    return Path(__file__).with_name(name.replace("-", "_") + ".py")


def _missing_package(command: str, error: ModuleNotFoundError) -> Exception:
    """What to tell where an optional package is not installed; a missing module of ours is a fault and stays one."""
    package = (error.name or "").partition(".")[0]
    if package in ("", "parallel_infer", "stages"):
        return error
    return click.ClickException(f"`{command}` needs the Python package {package}, which is not installed")


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        click.echo(f"parallel-infer {version('parallel-infer')}")
    except PackageNotFoundError:
        click.echo("parallel-infer, run from a checkout that is not installed")
    ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version."
)
def main() -> None:
    """Serve ONNX models on pictures, with separate processes for every stage.

    Start with `parallel-infer serve`, then `parallel-infer infer detector PICTURE`.
    """
