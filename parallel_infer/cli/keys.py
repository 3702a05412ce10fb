"""`parallel-infer keys`: who may come in over the network."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from parallel_infer.cli.common_options import json_option
from parallel_infer.cli.parameter_types import GivenPath
from parallel_infer.cli.tables import print_table
from parallel_infer.errors import ConfigError

DEFAULT = "keys"


def _folder(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--dir",
        "folder",
        type=GivenPath(file_okay=False, path_type=Path),
        default=DEFAULT,
        show_default=True,
        help="The server's folder of keys, as given to `serve --keys`.",
    )(command)


@click.group("keys")
def command() -> None:
    """Make the keys that let clients in over the network (CURVE).

    \b
    parallel-infer keys new camera                a key for the client "camera", written to camera.key
    parallel-infer serve --keys keys              only clients with such a key come in over tcp
    parallel-infer infer --key camera.key ...     the client shows it
    """  # noqa: D301  # click looks for the character itself


@command.command("new")
@click.argument("name")
@click.option("--server", is_flag=True, help="Make the key pair of the server itself and no client's.")
@click.option("--manage", is_flag=True, help="The client may also load and unload models and stop the server.")
@click.option(
    "--out",
    type=GivenPath(dir_okay=False, path_type=Path),
    help="Where to write the client's own key file.  [default: NAME.key]",
)
@_folder
def new(name: str, server: bool, manage: bool, out: Path | None, folder: Path) -> None:
    """Make a key for the client NAME and let it in; where the server has none yet, make its key pair too.

    A running server knows the new key at once. The client's key file holds its secret: move it to the client.
    """
    if server and (manage or out is not None):
        raise click.UsageError("--manage and --out are about a client's key; --server makes the server's own")
    if server:
        _new_server(folder)
    else:
        _new_client(name, manage, out or Path(f"{name}.key"), folder)


def _new_server(folder: Path) -> None:
    from parallel_infer.ipc.client_socket import new_key_pair
    from parallel_infer.keys.server import KeyPair, add_server

    click.echo(f"the server's keys: {add_server(folder, KeyPair(*new_key_pair()))}")


def _new_client(name: str, manage: bool, out: Path, folder: Path) -> None:
    from parallel_infer.ipc.client_socket import new_key_pair
    from parallel_infer.keys.server import (
        SERVER_FILE,
        KeyFolder,
        KeyPair,
        KnownClient,
        add_client,
        check_name,
        write_client_key,
    )

    check_name(name)  # before anything is written
    if not (folder / SERVER_FILE).exists():
        _new_server(folder)
    server = KeyFolder.open(folder).server()
    pair, token = KeyPair(*new_key_pair()), secrets.token_urlsafe(32)
    listed = add_client(folder, KnownClient(name, pair.public, manage, hashlib.sha256(token.encode()).hexdigest()))
    try:
        written = write_client_key(out, name, pair, server.public, token)
    except ConfigError:
        listed.unlink()  # nobody would have the secret that belongs to it
        raise
    click.echo(f"{name} may come in{' and manage the server' if manage else ''}: {listed}")
    click.echo(f"the client's own key file, which holds its secret: {written}")


@command.command("list")
@json_option
@_folder
def list_(as_json: bool, folder: Path) -> None:
    """Show the server's public key and who may come in."""
    from parallel_infer.keys.server import KeyFolder

    keys = KeyFolder.open(folder)
    server, clients = keys.server().public, keys.clients()
    if as_json:
        listed = [{"name": client.name, "public": client.public, "manage": client.manages} for client in clients]
        click.echo(json.dumps({"server": server, "clients": listed}))
        return
    click.echo(f"public key of the server: {server}\n")
    print_table(
        ("client", "may manage", "public key"),
        [(client.name, "yes" if client.manages else "no", client.public) for client in clients],
    )
