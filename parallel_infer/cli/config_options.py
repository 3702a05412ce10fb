"""The options that make a ServerConfig, generated from its fields; `serve`, `doctor` and others share them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from msgspec import NODEFAULT, inspect

from parallel_infer.cli.parameter_types import FiniteRange, GivenPath
from parallel_infer.config.fields import PREFIX, SERVER_FIELDS, Field
from parallel_infer.config.sources import Configuration, read_config
from parallel_infer.errors import ConfigError

Command = TypeVar("Command", bound=Callable[..., Any])

ON_COMMAND_LINE = tuple(field.name for field in SERVER_FIELDS.values() if field.is_option)

FURTHER_FIELDS = (
    "Every setting can also be given in a TOML file (--config) or in the environment (PARALLEL_INFER_ and its name in "
    "upper case); the command line wins over the environment, the environment over the file."
)


def model_options(command: Command) -> Command:
    """--model and --config."""
    command = click.option(
        "--config",
        type=GivenPath(dir_okay=False, path_type=Path),
        envvar=PREFIX + "CONFIG",
        show_envvar=True,
        help="TOML file with any of the settings.",
    )(command)
    return click.option(
        "--model",
        "models",
        multiple=True,
        metavar="NAME=PATH",
        help="A model to serve and the name clients ask for; may be given several times. PATH is an ONNX file, a "
        "folder in Triton's layout, or zoo:NAME for a shipped model. None at all: the shipped detector, classifier "
        "and segmenter.",
    )(command)


def config_options(command: Command) -> Command:
    """--model, --config and an option for every field of `ON_COMMAND_LINE`."""
    for name in reversed(ON_COMMAND_LINE):
        command = option_of(SERVER_FIELDS[name])(command)
    return model_options(command)


def configuration(options: dict[str, Any]) -> Configuration:
    """The effective configuration: `options` as click gives them for `config_options`, then environment and file."""
    arguments = {name: value for name, value in options.items() if name in SERVER_FIELDS}
    return read_config(arguments, options["config"], os.environ)


def option_of(field: Field) -> Callable[[Command], Command]:
    """The option of the command line for a field."""
    kind = field.type
    if isinstance(kind, inspect.BoolType):
        if field.default is True:
            both = f"{field.option}/--no-{field.option.removeprefix('--')}"
            return click.option(both, default=None, help=f"{field.meaning}  [default: {field.option[2:]}]")
        return click.option(field.option, is_flag=True, default=None, help=field.meaning)
    if isinstance(kind, inspect.DictType):
        return _table_option(field)
    several = isinstance(kind, inspect.ListType)
    text = field.meaning + (" May be given several times." if several else "")
    # no default is given to click, because an option that was not given must not hide the environment or the file
    return click.option(
        field.option,
        type=_type(kind),
        multiple=several,
        default=None,
        callback=_flattened if several else None,
        help=f"{text}{_default_text(field)}",
    )


def _table_option(field: Field) -> Callable[[Command], Command]:
    """NAME=VALUE, several times; what is in VALUE is its own business."""

    def together(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str] | None:
        pairs = [pair for text in values for pair in field.parse(text, field.option).items()]
        names = [name for name, _ in pairs]
        if again := next((name for name in names if names.count(name) > 1), None):
            raise ConfigError(f"{field.option}: {again!r} is given twice; give it once")
        return dict(pairs) or None

    text = f"{field.meaning} May be given several times."
    return click.option(field.option, multiple=True, metavar="NAME=STEPS", callback=together, help=text)


def _type(kind: inspect.Type) -> click.ParamType[Any]:
    match kind:
        case inspect.ListType(item_type=inspect.LiteralType(values=values)):
            return _Choices([str(value) for value in values])
        case inspect.ListType(item_type=item):
            return _type(item)
        case inspect.LiteralType(values=values):
            return click.Choice([str(value) for value in values])
        case inspect.IntType():
            return click.IntRange(kind.ge, kind.le)
        case inspect.FloatType(gt=None):
            return FiniteRange(kind.ge, kind.le)
        case inspect.FloatType():
            return FiniteRange(kind.gt, kind.le, min_open=True)
    return click.STRING


class _Choices(click.Choice[str]):
    """One of the choices, or several with commas between them, as in the environment."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        return [super(_Choices, self).convert(part.strip(), parameter, context) for part in value.split(",")]


def _flattened(_: click.Context, __: click.Parameter, values: Any) -> Any:
    """Values that were given one by one, or together, as one sequence."""
    if not values:
        return values
    return tuple(part for value in values for part in (value if isinstance(value, list) else [value]))


def _default_text(field: Field) -> str:
    if field.default in (None, NODEFAULT, [], ""):
        return ""
    values = field.default if isinstance(field.default, list) else [field.default]
    return f"  [default: {', '.join(str(value) for value in values)}]"
