"""Options of commands that ask a model: what its answer holds."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from parallel_infer.cli.parameter_types import FiniteRange

Command = TypeVar("Command", bound=Callable[..., Any])


def read_options(_: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE pairs as a map; a value is JSON where it can be, otherwise text."""
    options: dict[str, Any] = {}
    for text in values:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE", param=parameter)
        if key in options:
            raise click.BadParameter(f"{key!r} is given twice; give it once", param=parameter)
        options[key] = value
        with contextlib.suppress(ValueError):
            options[key] = json.loads(value)
    return options


def options_of(conf: float | None, iou: float | None, further: Mapping[str, Any]) -> dict[str, Any]:
    """What --conf, --iou and --option say together. Raises UsageError for what two of them say."""
    given = {name: value for name, value in {"confidence": conf, "iou": iou}.items() if value is not None}
    if both := given.keys() & further.keys():
        raise click.UsageError(f"{both.pop()!r} is given in two ways, one of them --option; give it once")
    return {**given, **further}


def answer_options(command: Command) -> Command:
    """--conf, --iou and --option, as `conf`, `iou` and `options`."""
    command = click.option(
        "--option",
        "options",
        multiple=True,
        metavar="KEY=VALUE",
        callback=read_options,
        help="Any other option of the model's task, for example max_detections=10 or class_filter='[\"person\"]'.",
    )(command)
    command = click.option(
        "--iou", type=FiniteRange(0, 1), help="Overlap above which the weaker of two boxes is dropped."
    )(command)
    return click.option("--conf", type=FiniteRange(0, 1), help="Least confidence of what is reported.")(command)
