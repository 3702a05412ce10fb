"""`parallel-infer stop`: end a server without losing what it has admitted."""

from __future__ import annotations

import click

from parallel_infer.cli.server_options import GivenKey, connected, server_options


@click.command("stop")
@server_options
def command(server: str, key: GivenKey) -> None:
    """Let a server answer what it has admitted, and stop.

    It refuses what is new from then on and ends once every client has its answers, after drain_timeout_ms at the
    latest. Over the network that takes a key made with --manage.
    """
    with connected(server, key) as client:
        client.stop()
    click.echo(f"the server at {server} is stopping")
