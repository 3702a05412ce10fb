"""`parallel-infer route`: one address in front of several servers."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from parallel_infer.cli.config_options import option_of
from parallel_infer.cli.parameter_types import GivenPath
from parallel_infer.config.environment import ROUTE_PREFIX
from parallel_infer.config.route_sources import ROUTE_FIELDS, read_route

if TYPE_CHECKING:
    from parallel_infer.config.route_schema import RouteConfig
    from parallel_infer.router.process import Outcome, RouterProcess
    from parallel_infer.supervisor.signals import Signals

log = logging.getLogger(__name__)


def _route_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for field in reversed(ROUTE_FIELDS.values()):
        command = option_of(field)(command)
    return command


@click.command(
    "route",
    epilog="Every setting can also be given in a TOML file (--config) or in the environment (PARALLEL_INFER_ROUTE_ and "
    "its name in upper case); the command line wins over the environment, the environment over the file.",
)
@_route_options
@click.option(
    "--config",
    type=GivenPath(dir_okay=False, path_type=Path),
    envvar=ROUTE_PREFIX + "CONFIG",
    show_envvar=True,
    help="TOML file with any of the settings.",
)
@click.option("--json", "as_json", is_flag=True, help="Say that the router listens as one JSON object.")
def command(config: Path | None, as_json: bool, **options: Any) -> None:
    """Spread jobs over several servers, until SIGTERM, SIGINT or a client's stop.

    Clients speak with a router as with a server. A job goes to the member with the fewest under way among those that
    have its model; what a member that is lost leaves unanswered goes to another.

    \b
    parallel-infer route --member tcp://10.0.0.5:5555 --member tcp://10.0.0.6:5555
    parallel-infer route --members dns:vision-nodes:5555      each address of that name
    parallel-infer route --members file:members.txt           each line, looked at again and again
    """  # noqa: D301  # click looks for the character itself
    raise click.exceptions.Exit(_route(read_route(options, config, os.environ), as_json))


def _route(config: RouteConfig, as_json: bool) -> int:
    from setproctitle import setproctitle  # first used here: --help needs none of it

    from parallel_infer.observe.exporter import metrics_page
    from parallel_infer.process.logs import start_logging
    from parallel_infer.process.rundir import socket_directory
    from parallel_infer.router.process import RouterProcess
    from parallel_infer.supervisor.signals import Signals

    setproctitle("parallel-infer: router")
    start_logging(config.log_format, config.log_level, "router")
    with Signals() as signals, contextlib.ExitStack() as ending:
        try:
            inside = ""
            if config.http or config.grpc or config.metrics_port:
                inside = f"ipc://{ending.enter_context(socket_directory())}/inside"
            router = RouterProcess(config, inside)
            ending.callback(router.abort)
            router.open()
        except KeyboardInterrupt:
            return 0
        if config.metrics_port:
            ending.enter_context(metrics_page(config.metrics_host, config.metrics_port, inside))
        signals.calm()
        _run(router, signals, as_json)
        return _say_how_it_ended(router.close())


def _run(router: RouterProcess, signals: Signals, as_json: bool) -> None:
    """Until the first signal, and then until everything is answered or a second one comes."""

    def ready(addresses: tuple[str, ...]) -> None:
        count = len(router.core.members)
        said = {"ready": True, "addresses": addresses, "members": count}
        click.echo(json.dumps(said) if as_json else f"ready: {' '.join(addresses)} ({count} members)")

    def ending() -> bool:
        if signals.take_reload():
            log.info("SIGHUP: there is nothing to read again; files and names of members are looked at all the time")
        if not signals.ending:
            return False
        signals.forget()
        router.hasten()
        return True

    router.run(signals.descriptor, ending, ready)


def _say_how_it_ended(ended: Outcome) -> int:
    counts = f"{ended.answered} jobs answered, {ended.refused} refused, {ended.abandoned} abandoned"
    told = f"stopped: since the stop began, {counts}"
    if not ended.abandoned and not ended.unread:
        log.info("%s", told)
        return 0
    unread = f"; {ended.unread} clients had not taken all their replies" if ended.unread else ""
    log.warning("%s%s: the time was over (option drain_timeout_ms)", told, unread)
    return 1
