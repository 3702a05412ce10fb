"""`parallel-infer models`: list, load and unload the models and chains of a running server."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from parallel_infer.cli.common_options import timeout_option
from parallel_infer.cli.plain_maps import cell
from parallel_infer.cli.server_options import GivenKey, connected, server_options
from parallel_infer.cli.tables import print_table
from parallel_infer.config.fields import MODEL_FIELDS
from parallel_infer.errors import ConfigError
from parallel_infer.model_files.class_names import read_names
from parallel_infer.wrong_fields import nearest

_SHORT = 12  # characters of a digest that are enough for people

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def _read_options(_: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE pairs as the settings of a model, each in its own type."""
    options: dict[str, Any] = {}
    for text in values:
        key, separator, value = text.partition("=")
        key = key.strip().replace("-", "_")
        if not separator:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE", param=parameter)
        if key not in MODEL_FIELDS or key == "path":
            raise click.BadParameter(f"unknown setting {key!r}{nearest(key, MODEL_FIELDS)}", param=parameter)
        if key in options:
            raise click.BadParameter(f"{key!r} is given twice; give it once", param=parameter)
        try:
            names = read_names(value, Path()) if key == "names" else value
            options[key] = names if names is not value else MODEL_FIELDS[key].parse(value, key)
        except ConfigError as error:
            raise click.BadParameter(str(error), param=parameter) from error
    return options


@click.group("models")
def command() -> None:
    """List, load and unload the models and chains of a running server."""


@command.command("list")
@server_options
@as_json
def list_models(server: str, key: GivenKey, as_json: bool) -> None:
    """Show what is served."""
    with connected(server, key) as client:
        models = client.models()
    if as_json:
        click.echo(json.dumps(models))
        return
    rows = [_row(model) for model in models]
    print_table(("name", "task", "family", "classes", "inputs", "batch", "instances", "provider", "sha256"), rows)
    for model in models:
        if model.get("chain"):
            click.echo(f"chain: {model['name']}: {model['chain']}")
        print_said(model["name"], model)


@command.command("load")
@click.argument("name")
@click.argument("path")
@server_options
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_read_options,
    help="A setting of the model, as in a [models.NAME] table, for example conf=0.4 or instances=2.",
)
@timeout_option(300.0, "Seconds that checking, loading and warming up may take.")
@as_json
def load(
    name: str, path: str, server: str, key: GivenKey, options: dict[str, Any], timeout: float, as_json: bool
) -> None:
    """Serve the ONNX file PATH of the server's machine as NAME, in place of the model of that name."""
    with connected(server, key) as client:
        loaded = client.load(name, _path(path), timeout=timeout, **options)
    _print_done(loaded, _loaded(name, loaded), as_json)
    if not as_json:
        print_said(name, loaded)


@command.command("load-chain")
@click.argument("name")
@click.argument("steps")
@server_options
@as_json
def load_chain(name: str, steps: str, server: str, key: GivenKey, as_json: bool) -> None:
    """Serve the chain STEPS of served models as NAME, for example "detector(class_filter=car) > reader"."""
    with connected(server, key) as client:
        loaded = client.load_chain(name, steps)
    _print_done(loaded, f"{name} is served: {loaded.get('became', 'new')}", as_json)


@command.command("unload")
@click.argument("name")
@server_options
@as_json
def unload(name: str, server: str, key: GivenKey, as_json: bool) -> None:
    """Stop serving NAME, a model or a chain; jobs that were admitted are still answered."""
    with connected(server, key) as client:
        unloaded = client.unload(name)
    _print_done(unloaded, f"{name} is unloaded", as_json)
    if not as_json:
        print_said(name, unloaded)


def _path(path: str) -> str:
    """Absolute where there is such a file here, because the server has another working folder."""
    return os.path.abspath(path) if Path(path).exists() else path


def _loaded(name: str, facts: Mapping[str, Any]) -> str:
    """What a load did."""
    became = facts.get("became")
    if became is None:
        return f"{name} is loaded"
    verb = "is served as before" if became == "unchanged" else "is loaded"
    return f"{name} {verb}: {became}, version {facts['version']}, sha256 {facts['digest'][:_SHORT]}"


def _print_done(result: Any, text: str, as_json: bool) -> None:
    click.echo(json.dumps(result) if as_json else text)


def print_said(name: str, model: Mapping[str, Any]) -> None:
    """What made the server take a model for what it does, and what it warns of, one line each."""
    for kind, key in (("evidence", "evidence"), ("warning", "warnings")):
        for text in model.get(key, ()):
            click.echo(f"{kind}: {name}: {text}")


def _row(model: Mapping[str, Any]) -> tuple[str, ...]:
    inputs = ", ".join(f"{name} {dtype} {'x'.join(map(str, shape))}" for name, dtype, shape in model.get("inputs", ()))
    facts = (model.get(key) for key in ("max_batch_size", "instances", "provider"))
    classes = str(len(model.get("classes", ())))
    kind = (cell(model.get(key)) for key in ("name", "task", "family"))
    return (*kind, classes, inputs, *(cell(fact) for fact in facts), str(model.get("digest", ""))[:_SHORT])
