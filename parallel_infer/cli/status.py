"""`parallel-infer status`: how a server is doing."""

from __future__ import annotations

import json

import click

from parallel_infer.cli.common_options import json_option
from parallel_infer.cli.plain_maps import print_map
from parallel_infer.cli.server_options import GivenKey, connected, server_options


@click.command("status")
@server_options
@json_option
def command(server: str, key: GivenKey, as_json: bool) -> None:
    """Show how a server is doing: models, workers, queues, rings and counters."""
    with connected(server, key) as client:
        found = client.status()
    if as_json:
        click.echo(json.dumps(found))
    else:
        # "served" says what the models are, and `models list` shows that; "times" are buckets, and `top` shows them
        print_map({name: value for name, value in found.items() if name not in ("served", "times")})
        for model in found.get("served", ()):
            for warning in model.get("warnings", ()):
                click.echo(f"warning: {model['name']}: {warning}")
