"""`parallel-infer health`: the exit code tells a monitor whether a server is there, and whether it can answer."""

from __future__ import annotations

import json
from typing import Any

import click

from parallel_infer.cli.common_options import json_option, timeout_option
from parallel_infer.cli.server_options import GivenKey, connected, server_options
from parallel_infer.cli.tables import print_table
from parallel_infer.errors import InferError

_READY = "ready"


@click.command("health")
@server_options
@click.option("--live", "question", flag_value="live", help="Does the server answer? Models may be on their way.")
@click.option(
    "--ready", "question", flag_value="ready", default="ready", help="Does every model answer a picture?  [default]"
)
@timeout_option(5.0, "Seconds until a server that says nothing counts as dead.")
@json_option
def command(server: str, key: GivenKey, question: str, timeout: float, as_json: bool) -> None:
    """Tell by the exit code whether a server is well: 0 it is, 1 it is not.

    --ready sends a small picture through every stage of every model, as no other look at a server does: a process that
    hangs, or a model that has lost its workers, shows within about a second.
    """
    found = _live(server, key, timeout) if question == "live" else _ready(server, key, timeout)
    if as_json:
        click.echo(json.dumps(found))
    else:
        _print(found)
    raise click.exceptions.Exit(0 if found[question] else 1)


def _live(server: str, key: GivenKey, timeout: float) -> dict[str, Any]:
    try:
        with connected(server, key, timeout) as client:
            client.models()
    except InferError as error:
        return {"live": False, "problem": f"{error.code}: {error}"}
    return {"live": True, "problem": ""}


def _ready(server: str, key: GivenKey, timeout: float) -> dict[str, Any]:
    try:
        with connected(server, key, timeout) as client:
            found = client.health()
    except InferError as error:
        return {"ready": False, "models": {}, "problem": f"{error.code}: {error}"}
    outcomes, states = found["models"], found["states"]
    problems = {name: outcome for name, outcome in outcomes.items() if outcome != _READY}
    models = {
        name: {"state": states.get(name, ""), "problem": problems.get(name, "")}
        for name in dict.fromkeys((*outcomes, *states))
    }
    away = [f"the door {name} is not there: {why}" for name, why in found.get("doors", {}).items() if why != _READY]
    problem = "; ".join(away) if outcomes else "no model is served"
    return {"ready": found["ready"], "models": models, "problem": problem}


def _print(found: dict[str, Any]) -> None:
    verdicts = [name if found[name] else f"not {name}" for name in ("live", "ready") if name in found]
    click.echo(": ".join([*verdicts, *([found["problem"]] if found["problem"] else [])]))
    models = found.get("models", {})
    if models:
        rows = [(name, model["state"], model["problem"]) for name, model in models.items()]
        print_table(("model", "state", "problem"), rows)
