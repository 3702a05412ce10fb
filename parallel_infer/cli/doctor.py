"""`parallel-infer doctor`: look at the machine and the configuration, and say what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from parallel_infer.cli.common_options import json_option
from parallel_infer.cli.config_options import config_options, configuration
from parallel_infer.config.schema import ServerConfig
from parallel_infer.errors import ConfigError
from parallel_infer.tools.doctor.findings import Finding, Verdict
from parallel_infer.tools.doctor.machine import machine_findings
from parallel_infer.tools.doctor.server import left_over_findings, server_findings

COLOURS = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.PROBLEM: "red"}


@click.command("doctor")
@config_options
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Check this machine, and the models and settings of a server that is to run on it.

    Takes the options of `serve`. The exit code is 1 where something would keep the server from working.
    """
    found = []
    for finding in examine(options):
        found.append(finding)
        if not as_json:
            _print(finding)
    problems = sum(finding.verdict is Verdict.PROBLEM for finding in found)
    if as_json:
        click.echo(json.dumps({"ok": not problems, "findings": [_as_dict(finding) for finding in found]}))
    if problems:
        raise click.exceptions.Exit(1)


def examine(options: dict[str, Any]) -> Iterator[Finding]:
    """All findings; a configuration that cannot be read is one, and the machine is looked at nevertheless."""
    try:
        found = configuration(options)
    except ConfigError as error:
        yield from machine_findings(ServerConfig())
        yield Finding.problem("configuration", str(error), "correct it and ask again")
        yield from left_over_findings()
        return
    config = found.config
    for warning in found.warnings:
        yield Finding.warning("environment", warning, "unset it, or set what is meant")
    yield from machine_findings(config)
    try:
        yield from server_findings(config)
    except ModuleNotFoundError as error:  # named above among the packages
        yield Finding.problem("models", f"not looked at: the package {error.name} is missing", "install it first")


def _print(finding: Finding) -> None:
    verdict = click.style(f"{finding.verdict.value:<8}", fg=COLOURS[finding.verdict])
    click.echo(f"{verdict} {finding.subject}: {finding.text}")
    if finding.remedy:
        click.echo(f"{'':<9}{finding.remedy}")


def _as_dict(finding: Finding) -> dict[str, str]:
    return {
        "subject": finding.subject,
        "verdict": finding.verdict.value,
        "text": finding.text,
        "remedy": finding.remedy,
    }
