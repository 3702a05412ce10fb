"""Options that several commands have, each in one form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from parallel_infer.cli.parameter_types import FiniteRange, GivenPath
from parallel_infer.execution_providers import PROVIDERS

Command = TypeVar("Command", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
pictures_option = click.option(
    "--pictures",
    type=GivenPath(exists=True, file_okay=False, path_type=Path),
    help="Folder of pictures to send; else the shipped ones as JPEG of 1280x720.",
)


def timeout_option(seconds: float, meaning: str) -> Callable[[Command], Command]:
    """--timeout in seconds, with that default."""
    kind = FiniteRange(0, 3600, min_open=True)
    return click.option("--timeout", type=kind, default=seconds, show_default=True, help=meaning)


def provider_option(meaning: str) -> Callable[[Command], Command]:
    """--provider, one of all or "auto"."""
    kind = click.Choice(["auto", *PROVIDERS])
    return click.option("--provider", type=kind, default="auto", show_default=True, help=meaning)
