"""The options with which a command finds its server: --server and --key."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from parallel_infer.errors import ConfigError

if TYPE_CHECKING:
    from parallel_infer import Client

Command = TypeVar("Command", bound=Callable[..., Any])
ADDRESS = "tcp://127.0.0.1:5555"


def server_options(command: Command) -> Command:
    """--server and --key, as the parameters `server` and `key`."""
    command = click.option(
        "--key",
        type=click.Path(dir_okay=False),
        envvar="PARALLEL_INFER_KEY",
        show_envvar=True,
        help="Key file of this client, where the server asks for one.",
    )(command)
    return click.option(
        "--server",
        metavar="ADDRESS",
        default=ADDRESS,
        show_default=True,
        envvar="PARALLEL_INFER_SERVER",
        show_envvar=True,
        help="Where the server listens: tcp://HOST:PORT or ipc://PATH.",
    )(command)


@contextlib.contextmanager
def connected(server: str, key: str | None, timeout: float = 5.0) -> Iterator[Client]:
    """A client of that server. Raises ConfigError for an address or a key that cannot be one."""
    from parallel_infer import Client  # first used here: the client imports numpy and ZeroMQ

    try:
        client = Client(server, key, timeout)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    with client:
        yield client
