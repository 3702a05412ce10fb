"""`parallel-infer serve`: options, environment and file become one configuration, and the supervisor runs it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from parallel_infer.cli.config_options import FURTHER_FIELDS, config_options, configuration
from parallel_infer.cli.tables import print_table
from parallel_infer.config.schema import ServerConfig
from parallel_infer.config.sources import Configuration, check_addresses
from parallel_infer.config.toml import to_toml
from parallel_infer.errors import ConfigError
from parallel_infer.process.group_signals import hold_hangups
from parallel_infer.supervisor.memory_report import as_dict, check_memory, ring_rows, shared_memory, size_text

if TYPE_CHECKING:
    from parallel_infer.supervisor.plan import Plan

_TO_TRY = "the default; the start tries others (option trial)"
log = logging.getLogger(__name__)


@click.command("serve", epilog=FURTHER_FIELDS)
@config_options
@click.option("--json", "as_json", is_flag=True, help="Say that the server is ready as one JSON object.")
@click.option(
    "--dry-run", is_flag=True, help="Check models, addresses and shared memory, show what would be used, and end."
)
@click.option(
    "--print-config",
    is_flag=True,
    help="Print the effective configuration as TOML, each line with where its value came from, and end.",
)
def command(as_json: bool, dry_run: bool, print_config: bool, **options: Any) -> None:
    """Start a server and run it until SIGTERM, SIGINT or a client's stop.

    \b
    parallel-infer serve                                      the shipped models on tcp://127.0.0.1:5555
    parallel-infer serve --model street=yolov8n.onnx          a model of your own
    parallel-infer serve --config server.toml --dry-run       what a configuration needs
    """  # noqa: D301  # click looks for the character itself
    hold_hangups()
    found = configuration(options)
    if print_config or dry_run:
        for warning in found.warnings:
            click.echo(f"warning: {warning}", err=True)
    if print_config:
        click.echo(to_toml(found), nl=False)
        return
    check_addresses(found.config)
    if dry_run:
        _rehearse(found.config, as_json)
        return
    raise click.exceptions.Exit(_serve(found, as_json, lambda: _again(found, configuration(options))))


def _again(found: Configuration, now: Configuration) -> ServerConfig:
    """A configuration that was read again. Raises ConfigError where it has lost its models: it may be half written."""
    if found.names_models and not now.names_models:
        raise ConfigError("it names no model any more; to serve the shipped ones, name them or start the server anew")
    return now.config


def _serve(found: Configuration, as_json: bool, reread: Callable[[], ServerConfig]) -> int:
    from parallel_infer.process.logs import start_logging  # first used here: --help needs none of it
    from parallel_infer.supervisor.serve import Announce, serve

    config = found.config
    start_logging(config.log_format, config.log_level, "supervisor")
    for warning in found.warnings:
        log.warning("%s", warning)
    return serve(config, Announce.JSON if as_json else Announce.TEXT, reread)


def _rehearse(config: ServerConfig, as_json: bool) -> None:
    """Look into every model, size every ring, and compare with what there is."""
    from parallel_infer.supervisor.fit import fit, what_was_lowered
    from parallel_infer.supervisor.plan import make_plan
    from parallel_infer.supervisor.tried import known_settings

    wanted, memory = known_settings(config, make_plan(config)), shared_memory()
    smaller, plan = fit(config, wanted, memory)
    if smaller is not config:
        click.echo(f"warning: {what_was_lowered(config, smaller, wanted, memory)}", err=True)
    if as_json:
        models = {model.name: _facts(model) for model in plan.models}
        click.echo(json.dumps({"models": models, "memory": as_dict(plan, memory), "trial": plan.trial or _TO_TRY}))
    else:
        _print_plan(plan)
        click.echo(f"/dev/shm has {size_text(memory.free)} free of {size_text(memory.size)}")
    check_memory(plan, memory)


def _print_plan(plan: Plan) -> None:
    columns = ("model", "task", "family", "largest batch", "instances", "provider", "threads")
    facts = [{"model": model.name, **_facts(model)} for model in plan.models]
    print_table(columns, [tuple(str(fact[column.replace(" ", "_")]) for column in columns) for fact in facts])
    for model in plan.models:
        for warning in model.spec.warnings:
            click.echo(f"warning: {model.name}: {warning}")
    click.echo(f"\ndecode workers: {plan.decode_workers}, postprocess workers: {plan.postprocess_workers}")
    click.echo(f"instances, threads and batches: {plan.trial or _TO_TRY}\n")
    print_table(("shared memory", "slots", "per slot", "in all"), ring_rows(plan))


def _facts(model: Any) -> dict[str, Any]:
    return {
        "task": model.spec.task,
        "family": model.spec.family,
        "largest_batch": model.max_batch,
        "instances": model.instances,
        "provider": model.session.provider,
        "threads": model.session.threads,
        "warnings": list(model.spec.warnings),
    }
