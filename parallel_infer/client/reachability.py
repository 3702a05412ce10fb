"""Why an address is not reached: a look with plain sockets, as `ping` and `telnet` would take it.

The texts are whole sentences about the first obstacle on the way: the name, the socket's file, the port, whoever
listens there, and the mechanism (NULL or CURVE) that it announces in its greeting (ZMTP 3.0, RFC 23).
"""

from __future__ import annotations

import errno
import pwd
import re
import socket
import stat
from pathlib import Path

from parallel_infer.client.endpoint import Address

PATIENCE = 2.0  # seconds for each step
_SIGNATURE, _GREETING = 10, 64  # bytes
_SIGNED = b"\xff\0\0\0\0\0\0\0\1\x7f\3\0"  # and the version: upon these a server sends its whole greeting
_IS_IT_RUNNING = "Is the server running?"


class _Obstacle(Exception):
    """Why it goes no further."""


def other_mechanism(address: Address) -> str:
    """What is said where only one of the two has a key."""
    if address.key is None:
        return (
            f"The server at {address.endpoint} asks for a key, and this client has none (key=, on the command line "
            "--key)."
        )
    return f"The server at {address.endpoint} uses no keys; connect without one (key=, on the command line --key)."


def other_server_key(address: Address) -> str:
    """What is said of a server that hangs up upon this client's first word, since it cannot decrypt it."""
    return f"The key of the server at {address.endpoint} is not the one in this client's key file"


def reason_for(address: Address, patience: float = PATIENCE) -> str:
    """Why the server at an address is not reached, as far as can be found out within some seconds."""
    return " ".join(_reason_for(Address(endpoint, address.key), patience) for endpoint in address.endpoints)


def _reason_for(address: Address, patience: float) -> str:
    try:
        with _connected(address.endpoint, patience) as found:
            return _of_listener(address, _greeting(found))
    except _Obstacle as obstacle:
        return str(obstacle)
    except OSError as error:
        return f"{address.endpoint} cannot be reached: {error.strerror or error}."


def _connected(endpoint: str, patience: float) -> socket.socket:
    kind, _, place = endpoint.partition("://")
    return _ipc(endpoint, place, patience) if kind == "ipc" else _tcp(endpoint, place, patience)


def _ipc(endpoint: str, path: str, patience: float) -> socket.socket:
    if not path.startswith("@"):
        _check_file(endpoint, Path(path))
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    found.settimeout(patience)
    try:
        found.connect("\0" + path[1:] if path.startswith("@") else path)
    except OSError as error:
        found.close()
        raise _ipc_obstacle(endpoint, path, error) from error
    return found


def _check_file(endpoint: str, path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise _Obstacle(f"Nobody listens at {endpoint}: there is no such socket. {_IS_IT_RUNNING}") from None
    except PermissionError:
        raise _Obstacle(f"This user may not look into the folder of {endpoint} (permission denied).") from None
    if not stat.S_ISSOCK(mode):
        raise _Obstacle(f"Nobody listens at {endpoint}: the file is no socket.")


def _ipc_obstacle(endpoint: str, path: str, error: OSError) -> _Obstacle:
    if error.errno in (errno.EACCES, errno.EPERM):
        return _Obstacle(
            f"This user may not use the socket {endpoint} (permission denied); it belongs to {_owner(path)}. Run the "
            "client as that user, or let the server listen on tcp as well."
        )
    if error.errno == errno.ECONNREFUSED:
        return _Obstacle(f"Nobody listens at {endpoint}: the connection is refused. {_IS_IT_RUNNING}")
    if isinstance(error, TimeoutError) or error.errno == errno.EAGAIN:
        return _Obstacle(f"The server at {endpoint} lets nobody in: it is stopped, or very busy.")
    return _Obstacle(f"{endpoint} cannot be reached: {error.strerror or error}.")


def _owner(path: str) -> str:
    number = Path(path).stat().st_uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _tcp(endpoint: str, place: str, patience: float) -> socket.socket:
    match = re.fullmatch(r"(?:.*;)?(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]]+)):(?P<port>\d+)", place)
    if match is None:
        raise _Obstacle(f"Nobody answers at {endpoint}. {_IS_IT_RUNNING}")
    host = match["v6"] or match["host"]
    try:
        family = socket.AF_UNSPEC if match["v6"] else socket.AF_INET  # as ZeroMQ looks for it
        addresses = socket.getaddrinfo(host, int(match["port"]), family, socket.SOCK_STREAM)
    except (OSError, UnicodeError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise _Obstacle(
            f"Unknown host in {endpoint}: the name {host!r} does not resolve ({why}). Is it written as the server is "
            "called?"
        ) from None
    try:
        return socket.create_connection((str(addresses[0][4][0]), int(match["port"])), patience)
    except OSError as error:
        raise _tcp_obstacle(endpoint, host, error) from error


def _tcp_obstacle(endpoint: str, host: str, error: OSError) -> _Obstacle:
    if error.errno == errno.ECONNREFUSED:
        return _Obstacle(f"Nobody listens at {endpoint}: the connection is refused. {_IS_IT_RUNNING}")
    if isinstance(error, TimeoutError):
        return _Obstacle(f"{host} does not answer at {endpoint}: it is off, or a firewall is in between.")
    return _Obstacle(f"{endpoint} cannot be reached: {error.strerror or error}.")


def _greeting(found: socket.socket) -> bytes | None:
    """The first bytes of whoever listens: fewer than a greeting where it says something else; None: it hung up."""
    came = b""
    try:
        found.sendall(_SIGNED)
        while len(came) < _GREETING and (len(came) < _SIGNATURE or _is_signature(came)):
            more = found.recv(_GREETING - len(came))
            if not more:
                return came or None
            came += more
    except TimeoutError:
        return came
    except OSError:
        return came or None
    return came


def _is_signature(came: bytes) -> bool:
    return came[0] == 0xFF and came[9] == 0x7F


def _of_listener(address: Address, came: bytes | None) -> str:
    endpoint = address.endpoint
    if came is None:
        return f"Somebody listens at {endpoint} but hangs up at once."
    if not came:
        return f"Somebody listens at {endpoint} but does not answer: it is stopped, very busy, or out of open files."
    if len(came) < _GREETING or not _is_signature(came):
        return f"What listens at {endpoint} is no server of this kind: it does not speak ZeroMQ (ZMTP 3)."
    mechanism = came[12:32].rstrip(b"\0")
    if (mechanism == b"CURVE" and address.key is None) or (mechanism == b"NULL" and address.key is not None):
        return other_mechanism(address)
    if address.key is not None:
        return f"{other_server_key(address)}, or the handshake was not finished yet."
    return f"Somebody listens at {endpoint}, but no handshake was finished yet."
