"""`parallel-infer top`: a server while it works, in the terminal."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from parallel_infer.cli.parameter_types import FiniteRange
from parallel_infer.cli.server_options import GivenKey, connected, server_options
from parallel_infer.cli.tables import console as console_of_width
from parallel_infer.errors import InferError

if TYPE_CHECKING:
    from parallel_infer import Client
    from parallel_infer.observe.rates import Rates


@click.command("top")
@server_options
@click.option("--interval", type=FiniteRange(0.1, 60), default=1.0, show_default=True, help="Seconds per look.")
@click.option("--once", is_flag=True, help="Look for one interval, print it, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per look.")
def command(server: str, key: GivenKey, interval: float, once: bool, as_json: bool) -> None:
    """Watch a server: models, how busy each stage is, which one holds up the others, and live sources.

    A stage that is busy for 70 % of the time or more is marked: it is where more workers or a faster model would help.
    Ctrl-C ends it.
    """
    with connected(server, key, timeout=2.0) as client:
        looks = _looks(client, interval)
        if once:
            _print(next(looks), server, as_json)
        elif as_json:
            for found in looks:
                _print(found, server, as_json)
        else:
            _watch(client, looks, server, interval)


def _looks(client: Client, interval: float) -> Iterator[Rates]:
    """What happened in each interval. Raises InferError where the server does not answer; may be asked again then."""
    from parallel_infer.observe.rates import rates

    older, looked = client.status(), time.monotonic()
    while True:
        time.sleep(max(0.0, looked + interval - time.monotonic()))
        newer, now = client.status(), time.monotonic()
        yield rates(older, newer, now - looked)
        older, looked = newer, now


def _print(found: Rates, server: str, as_json: bool) -> None:
    if as_json:
        bottleneck = found.bottleneck
        click.echo(json.dumps({**asdict(found), "bottleneck": None if bottleneck is None else asdict(bottleneck)}))
        return

    from parallel_infer.cli.top_screen import screen

    console = console_of_width()
    console.print(screen(found, server, console.width, None))


def _watch(client: Client, looks: Iterator[Rates], server: str, interval: float) -> None:
    from rich.live import Live

    from parallel_infer.cli.top_screen import screen, waiting

    console = console_of_width()
    if not console.is_terminal:
        raise click.UsageError("this is no terminal; use --once or --json")
    shown: Any = waiting(server, "looking ...")
    with Live(shown, console=console, screen=True, auto_refresh=False) as live:
        try:
            while True:
                try:
                    shown = screen(next(looks), server, console.width, console.height)
                except InferError as error:
                    shown = waiting(server, f"{error.code}: {error}")
                    looks = _looks(client, interval)
                    time.sleep(interval)
                live.update(shown, refresh=True)
        except KeyboardInterrupt:
            return
