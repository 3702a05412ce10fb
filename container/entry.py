"""What a container runs: `serve` with what lies in /models and keys of its own, or any other command as it is.

An argument that is no option is a command of parallel-infer (`status`, `keys list`, `infer ...`); `route` gets its
address and the keys of /keys, where nothing else names any. Otherwise these are options of `serve`, and what neither
they nor the environment nor the configuration file say is filled in:

  models   all of /models, where something is mounted there; else the shipped ones
  keys     those of /keys/server, made at the first start, and printed once; those of /keys itself, where a Secret of
           Kubernetes is mounted there; none with --insecure, which is said aloud
  bind     besides what is asked for, the socket of PARALLEL_INFER_SERVER: for the health check and `docker exec`

Then this process becomes `parallel-infer serve`. Errors are one line and exit code 2.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from parallel_infer.cli.config_options import configuration
from parallel_infer.cli.route import command as route
from parallel_infer.cli.serve import command as serve
from parallel_infer.config.environment import ROUTE_PREFIX
from parallel_infer.config.sources import COMMAND_LINE, Configuration
from parallel_infer.errors import ConfigError

DEFAULTS = Path(__file__).with_name("server.toml")
CONFIG = "PARALLEL_INFER_CONFIG"
SOCKET = "PARALLEL_INFER_SERVER"
ROUTER = "tcp://0.0.0.0:5555"  # where a router listens
CLIENT = "client"  # the name of the key that is made at the first start


class Folders:
    """Where a container finds things; below `root`, which is another one in tests."""

    def __init__(self, root: Path) -> None:
        self.models = root / "models"
        self.keys = root / "keys"
        self.memory = root / "dev" / "shm"
        # one for each user, because /dev/shm may be shared with the host
        self.fleeting_keys = self.memory / f"parallel-infer-keys-{os.getuid()}"


def main(words: Sequence[str]) -> None:
    """Become the command that `words` ask for."""
    os.environ.setdefault(CONFIG, str(DEFAULTS))
    if words and not words[0].startswith("-") and words[0] not in ("serve", "route"):
        become(words)
    command, complete = ("route", routed) if words[:1] == ["route"] else ("serve", completed)
    options = words[1:] if words[:1] == [command] else words
    if {"--help", "-h"} & {*options}:
        become([command, *options])
    try:
        become([command, *complete(options, Folders(Path("/")))])
    except (click.ClickException, ConfigError) as error:
        say(error.format_message() if isinstance(error, click.ClickException) else str(error))
        raise SystemExit(2) from error


def become(words: Sequence[str]) -> None:
    """Replace this process by `parallel-infer WORDS`."""
    program = Path(sys.executable).with_name("parallel-infer")
    os.execv(program, ["parallel-infer", *words])  # noqa: S606  # no shell is wanted


def completed(options: Sequence[str], folders: Folders) -> list[str]:
    """The options of `serve`, with what a configuration leaves open filled in. Raises ConfigError, UsageError."""
    repository = ["--model-repository", str(folders.models)] if folders.models.is_dir() else []
    try:
        found = effective(options)
    except ConfigError:
        if not repository:
            raise
        options, repository = [*options, *repository], []  # a table without a path may be about a model in there
        found = effective(options)
    if not found.names_models:
        if not repository:
            say(f"no models are given: the shipped ones are served. Mount yours: -v FOLDER:{folders.models}")
        options = [*options, *repository]
    keys = [] if "--print-config" in options else keys_options(found, folders)
    return [*options, *keys, *socket_options(found)]


def routed(options: Sequence[str], folders: Folders) -> list[str]:
    """The options of `route`: what they, its variables and its file leave open is filled in. Raises UsageError.

    Where the address is not that of a variable or a file, the socket of the health check is listened at as well.
    """
    given = route.make_context("route", list(options)).params
    words = [*options]
    if given["config"] is None and not os.environ.get(f"{ROUTE_PREFIX}BIND"):
        socket = os.environ.get(SOCKET, "")
        added = [] if given["bind"] else [ROUTER]
        added += [socket] if socket.startswith("ipc://") and socket not in given["bind"] else []
        words += [word for address in added for word in ("--bind", address)]
    named = [name for name in ("keys", "insecure") if given[name] or os.environ.get(ROUTE_PREFIX + name.upper())]
    if not named and given["config"] is None and (folders.keys / "server.key").exists():
        words += ["--keys", str(copy_of_secret(folders))]
    own = folders.keys / "router.key"
    if given["key"] is None and not os.environ.get(f"{ROUTE_PREFIX}KEY") and own.exists():
        words += ["--key", str(own)]
    return words


def effective(options: Sequence[str]) -> Configuration:
    """The configuration that `serve` would have with these options. Raises ConfigError and click's UsageError."""
    return configuration(serve.make_context("serve", list(options)).params)


def socket_options(found: Configuration) -> list[str]:
    """`--bind`, with the socket of the health check added to the addresses; nothing where it is one of them."""
    socket = os.environ.get(SOCKET, "")
    if not socket.startswith("ipc://") or socket in found.config.bind:
        return []
    # what the command line says is there already; what another place says would not count beside an option
    before = [] if found.origins["bind"] == COMMAND_LINE else found.config.bind
    return [word for address in (*before, socket) for word in ("--bind", address)]


def keys_options(found: Configuration, folders: Folders) -> list[str]:
    """`--keys` with a folder that is there, or has just been made; nothing where the configuration says who may come.

    Raises ConfigError where keys cannot be made.
    """
    if found.config.insecure and found.config.keys is None:
        say("--insecure: there are no keys, and WHOEVER REACHES ITS PORTS MAY USE THIS SERVER")
        return []
    if found.config.keys is not None:
        return []
    if (folders.keys / "server.key").exists():
        return ["--keys", str(copy_of_secret(folders))]
    fleeting = f"They go with this container: mount a volume at {folders.keys} to keep them."
    if (folders.keys / "server").is_dir() or os.access(folders.keys, os.W_OK | os.X_OK):
        make_keys(folders.keys, f"They stay in {folders.keys}." if folders.keys.is_mount() else fleeting)
        return ["--keys", str(folders.keys / "server")]
    make_private(folders.fleeting_keys)
    make_keys(folders.fleeting_keys, fleeting)
    return ["--keys", str(folders.fleeting_keys / "server")]


def copy_of_secret(folders: Folders) -> Path:
    """A private copy of keys that are mounted flat, server.key beside NAME.pub: a Secret's files are open to others.

    Raises ConfigError where they cannot be read or copied.
    """
    make_private(folders.fleeting_keys)
    target = folders.fleeting_keys / "secret"
    shutil.rmtree(target, ignore_errors=True)
    files = {target / "server.key": folders.keys / "server.key"}
    files |= {target / "clients" / file.name: file for file in sorted(folders.keys.glob("*.pub"))}
    try:
        target.mkdir(mode=0o700)
        (target / "clients").mkdir(mode=0o700)
        for copy, file in files.items():
            copy.touch(mode=0o600)
            copy.write_bytes(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot take the keys of {folders.keys}: {error}") from error
    if len(files) == 1:
        say(f"{folders.keys} has no NAME.pub, so nobody will be let in")
    return target


def make_private(folder: Path) -> None:
    """A folder of this user that nobody else enters. Raises ConfigError where there cannot be one."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise ConfigError(
            f"no keys can be made: {error}. Mount a volume at /keys, give --keys FOLDER, or say --insecure if all "
            "who reach this server may use it"
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigError(f"{folder} is no folder of this user alone; remove it")


def make_keys(place: Path, lasting: str) -> None:
    """The server's keys and one client's in `place`, unless they are there; what is made is printed.

    Raises ConfigError where they cannot be made.
    """
    folder, file = place / "server", place / f"{CLIENT}.key"
    if any((folder / "clients").glob("*.pub")):
        return
    program = Path(sys.executable).with_name("parallel-infer")
    made = subprocess.run(
        [program, "keys", "new", CLIENT, "--dir", folder, "--out", file], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise ConfigError(f"no keys can be made: {made.stderr.strip()}")
    say(f"keys were made, for the server and for one client. {lasting}")
    say(f"this is {file}, the client's key file; it is shown this once. Over HTTP: Authorization: Bearer TOKEN")
    sys.stderr.write(file.read_text("ascii"))


def say(text: str) -> None:
    """To whoever reads the container's log."""
    print(f"container: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
