"""`parallel-infer trace`: what every process of a server did for some seconds, as a file for Perfetto."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click

from parallel_infer.cli.parameter_types import FiniteRange, GivenPath
from parallel_infer.cli.server_options import GivenKey, connected, file_of, server_options
from parallel_infer.cli.tables import print_table


@click.command("trace")
@server_options
@click.option(
    "--seconds", type=FiniteRange(0, 60, min_open=True), default=5.0, show_default=True, help="How long to record."
)
@click.option(
    "-o",
    "--output",
    type=GivenPath(dir_okay=False, path_type=Path),
    default=Path("trace.json"),
    show_default=True,
    help="The file to write.",
)
@click.option("--json", "as_json", is_flag=True, help="Say what was recorded as one JSON object.")
def command(server: str, key: GivenKey, seconds: float, output: Path, as_json: bool) -> None:
    """Record what every process of a server does, for https://ui.perfetto.dev or chrome://tracing.

    One track per process, with every job and batch it worked on. The server notes nothing unless it is asked.
    """
    from parallel_infer.files.outputs import Inputs, check_target, write_whole
    from parallel_infer.observe.chrome_trace import Work, chrome_trace

    check_target(output, Inputs([file_of(key)]), "--output")
    with connected(server, key) as client:
        recorded = client.trace(seconds)
    write_whole(output, json.dumps(chrome_trace(recorded), separators=(",", ":")).encode())
    facts = _facts([Work(*span) for span in recorded["work"]], recorded)
    if as_json:
        click.echo(json.dumps({"file": str(output), **facts}))
        return
    print_table(
        ("process", "pieces of work", "busy"),
        [(name, str(entry["work"]), f"{entry['busy']:.0%}") for name, entry in facts["processes"].items()],
    )
    click.echo(f"written: {output}; open it at https://ui.perfetto.dev (it stays on this machine)")
    if not recorded["complete"]:
        click.echo("note: more happened than a trace keeps; record fewer seconds", err=True)


def _facts(work: list[Any], recorded: dict[str, Any]) -> dict[str, Any]:
    pieces: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    for span in work:
        pieces[span.process] += 1
        seconds[span.process] += span.seconds
    length = recorded["seconds"]
    busy = {name: {"work": pieces[name], "busy": min(1.0, seconds[name] / length)} for name in sorted(pieces)}
    return {"seconds": length, "complete": recorded["complete"], "processes": busy}
