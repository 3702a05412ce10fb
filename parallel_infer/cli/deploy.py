"""`parallel-infer deploy`: a fleet of servers on a Ray cluster."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from parallel_infer.cli.parameter_types import FiniteRange, GivenPath
from parallel_infer.config.fields import PREFIX
from parallel_infer.config.fleet import read_fleet
from parallel_infer.errors import ConfigError
from parallel_infer.fleet import head as ray_head
from parallel_infer.fleet.report import addresses, as_dict, in_words, is_running, parts_of
from parallel_infer.fleet.rollout import check_access, deploy, fleets, only_fleet, take_down, wait_running
from parallel_infer.fleet.serve_file import check_structure, serve_file
from parallel_infer.fleet.yaml_text import to_yaml


@click.command("deploy")
@click.option(
    "--ray",
    "address",
    metavar="ADDRESS",
    default=ray_head.DEFAULT,
    show_default=True,
    envvar="RAY_ADDRESS",
    show_envvar=True,
    help="The dashboard of Ray's head, http://HOST:PORT.",
)
@click.option(
    "--config",
    type=GivenPath(dir_okay=False, path_type=Path),
    envvar=PREFIX + "CONFIG",
    show_envvar=True,
    help="TOML file of the servers, with a table [fleet].",
)
@click.option("--nodes", metavar="NUMBER|LEAST..MOST", help="Machines with a server each, in place of [fleet] nodes.")
@click.option("--name", help="The fleet to look at or to stop, without --config.")
@click.option("--dry-run", "action", flag_value="dry-run", help="Print the file for Ray Serve, check it, and end.")
@click.option("--status", "action", flag_value="status", help="Tell how it is doing: exit code 0 if all of it runs.")
@click.option("--down", "action", flag_value="down", help="Stop it; its servers answer what they have admitted.")
@click.option("--replace", is_flag=True, help="Take the place of a fleet of this name that another file made.")
@click.option("--growing", is_flag=True, help="Deploy on too few machines: the cluster adds more by itself.")
@click.option(
    "--timeout",
    type=FiniteRange(0, 86_400, min_open=True),
    default=600.0,
    show_default=True,
    help="Seconds until it must run, or have ended.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(action: str | None, **options: Any) -> None:
    """Run one server on each of many machines, behind a router, with Ray Serve.

    \b
    parallel-infer deploy --ray http://HEAD:8265 --config server.toml --dry-run
    parallel-infer deploy --ray http://HEAD:8265 --config server.toml --nodes 3
    parallel-infer deploy --ray http://HEAD:8265 --status
    """  # noqa: D301  # click looks for the character itself
    actions: dict[str, Callable[..., None]] = {"dry-run": _rehearse, "status": _status, "down": _down}
    (actions[action] if action else _deploy)(**options)


def _deploy(address: str, config: Path | None, nodes: str | None, replace: bool, growing: bool, **more: Any) -> None:
    fleet = _fleet(config, nodes)
    head = ray_head.Head(address, ray_head.token())
    file = serve_file(fleet, _origin(config))
    before = deploy(fleet, file, head, replaces=replace, grows=growing)
    wait_running(fleet.config.name, head, before, more["timeout"], lambda text: click.echo(text, err=True))
    _show(head, [fleet.config.name], more["as_json"])


def _rehearse(address: str, config: Path | None, nodes: str | None, as_json: bool, **_: Any) -> None:
    fleet = _fleet(config, nodes)
    check_access(fleet, ray_head.Head(address))
    file = serve_file(fleet, _origin(config))
    click.echo(json.dumps(file) if as_json else to_yaml(file), nl=as_json)
    click.echo(_checked(file), err=True)


def _status(address: str, name: str | None, config: Path | None, nodes: str | None, as_json: bool, **_: Any) -> None:
    head = ray_head.Head(address, ray_head.token())
    named = name or (_fleet(config, nodes).config.name if config else None)
    _show(head, [named] if named else fleets(head.applications()), as_json)


def _down(address: str, name: str | None, config: Path | None, nodes: str | None, **more: Any) -> None:
    head = ray_head.Head(address, ray_head.token())
    named = name or (_fleet(config, nodes).config.name if config else only_fleet(head.applications()))
    take_down(named, head, more["timeout"], lambda text: click.echo(text, err=True))
    click.echo(json.dumps({"down": named}) if more["as_json"] else f"the fleet {named} is stopped")


def _show(head: ray_head.Head, names: list[str], as_json: bool) -> None:
    """How fleets are doing. Ends with 1 where one of them is not as it should be, or none is there."""
    found = head.applications()
    parts = {name: parts_of(found, name) for name in names}
    well = bool(parts) and all(is_running(some) for some in parts.values())
    if as_json:
        facts = {
            name: {"running": is_running(some), "addresses": addresses(found, name), "parts": [*map(as_dict, some)]}
            for name, some in parts.items()
        }
        click.echo(json.dumps({"running": well, "fleets": facts}))
    else:
        for name, some in parts.items():
            click.echo(f"fleet {name}: {'running' if is_running(some) else 'not running'}")
            click.echo("\n".join(in_words(part) for part in some) or f"it is not deployed at {head.address}")
            click.echo(f"clients connect to {','.join(addresses(found, name)) or 'its servers, there is no router'}")
        if not parts:
            click.echo(f"no fleet is deployed at {head.address}")
    raise click.exceptions.Exit(0 if well else 1)


def _fleet(config: Path | None, nodes: str | None) -> Any:
    if config is None:
        raise ConfigError("which fleet? Give --config FILE.toml with a table [fleet]")
    fleet = read_fleet(config, os.environ, nodes)
    for warning in fleet.warnings:
        click.echo(f"warning: {warning}", err=True)
    return fleet


def _origin(config: Path | None) -> str:
    return f"{socket.gethostname()}:{'' if config is None else config.absolute()}"


def _checked(file: dict[str, Any]) -> str:
    """By what a file was checked. Raises ConfigError where it is wrong."""
    try:
        from ray import __version__  # first used here: it need not be installed
        from ray.serve.schema import ServeDeploySchema
    except ModuleNotFoundError:
        try:
            check_structure(file)
        except msgspec.ValidationError as error:
            raise ConfigError(f"that is no file for Ray Serve: {error}") from error
        return "checked by its structure; with ray installed (parallel-infer[ray]) it is checked by Ray's own schema"
    try:
        ServeDeploySchema.model_validate(file)
    except ValueError as error:
        raise ConfigError(f"Ray {__version__} does not take this file: {error}") from error
    return f"checked by the schema of Ray {__version__}"
