"""Whether the addresses that a server is to listen at are free: looked at before models are, which take long.

Each is listened at for a moment. Whoever takes one between this look and the start of the process that needs it is told
of by that process.
"""

from __future__ import annotations

import errno
import socket
from contextlib import closing

from parallel_infer.config.addresses import listened, socket_path
from parallel_infer.config.schema import ServerConfig
from parallel_infer.errors import ConfigError

_ANY_PORT = ("0", "*")
_REASONS = {
    errno.EADDRINUSE: "something else listens there; end it, or choose another",
    errno.EADDRNOTAVAIL: "no interface of this machine has this address",
    errno.EACCES: "ports below 1024 take a right that this user has not; choose a higher one",
}


def check_free(config: ServerConfig) -> None:
    """Raises ConfigError, naming the option, where nobody can listen at one of the configured addresses."""
    for setting, address in listened(config):
        try:
            if address.startswith("ipc://"):
                _try_socket(address)
            else:
                _try_port(*address.removeprefix("tcp://").rpartition(":")[::2])
        except OSError as error:
            reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
            raise ConfigError(f"cannot listen at {address} (option {setting}): {reason}") from None


def _try_port(host: str, port: str) -> None:
    """Raises OSError where nobody can listen there; a host that is no address of ours is left to who listens."""
    if port in _ANY_PORT:
        return
    host = "" if host == "*" else host.strip("[]")
    try:
        found = socket.getaddrinfo(host or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror:
        return  # the name of an interface, which ZeroMQ takes
    for family, kind, protocol, _, place in found:
        with closing(socket.socket(family, kind, protocol)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as whoever will listen does
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(place)
            listener.listen(1)  # with SO_REUSEADDR binding alone may succeed beside a listener that has it too


def _try_socket(address: str) -> None:
    """Raises OSError (EADDRINUSE) where a server listens at the path; what a dead one left is free."""
    path = socket_path(address)
    with closing(socket.socket(socket.AF_UNIX)) as asking:
        asking.settimeout(1.0)
        try:
            asking.connect(str(path) if path is not None else "\0" + address.removeprefix("ipc://@"))
        except OSError:
            return  # nobody listens; what else there may be is told by who will
        raise OSError(errno.EADDRINUSE, "in use")
