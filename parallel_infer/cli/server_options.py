"""The options with which a command finds its server: --server and --key."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import click

from parallel_infer.cli.parameter_types import GivenPath
from parallel_infer.errors import ConfigError

if TYPE_CHECKING:
    from parallel_infer import Client
    from parallel_infer.client import Key

GivenKey: TypeAlias = "str | Key | None"
"""A key file, or the keys in it where it can be read only once."""
Command = TypeVar("Command", bound=Callable[..., Any])
ADDRESS = "tcp://127.0.0.1:5555"
_PIPES = 8  # twice as many descriptors as this are what a client needs


def read_once(_: click.Context, __: click.Parameter, path: str | None) -> GivenKey:
    """A key file; what can be read only once, as a pipe, is read now: commands connect more than once."""
    if path is None or not Path(path).exists() or Path(path).is_file():
        return path
    from parallel_infer.client import Key

    try:
        return Key.of(path)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def file_of(key: GivenKey) -> str | None:
    """The key file that nothing may be written over."""
    return key if isinstance(key, str) else None


def server_options(command: Command) -> Command:
    """--server and --key, as the parameters `server` and `key`."""
    command = click.option(
        "--key",
        type=GivenPath(dir_okay=False),
        callback=read_once,
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
        help="Where the server listens: tcp://HOST:PORT or ipc://PATH. Several with commas between them: one is in "
        "use, and the next one when it is lost.",
    )(command)


@contextlib.contextmanager
def connected(server: str, key: GivenKey, timeout: float = 5.0) -> Iterator[Client]:
    """A client of that server. Raises ConfigError for an address or a key that cannot be one."""
    from parallel_infer import Client  # first used here: the client imports numpy and ZeroMQ

    _check_descriptors()
    try:
        client = Client(server, key, timeout)
    except UnicodeEncodeError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error
    with client:
        yield client


def _check_descriptors() -> None:
    """Raises OSError where a client's would not do: ZeroMQ ends the whole process when it gets none."""
    descriptors: list[int] = []
    try:
        for _ in range(_PIPES):
            descriptors += os.pipe2(os.O_CLOEXEC)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
