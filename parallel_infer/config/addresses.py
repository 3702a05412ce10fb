"""Addresses a server listens on: their form, and who can reach them."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from parallel_infer.config.fields import show
from parallel_infer.config.schema import ServerConfig
from parallel_infer.errors import ConfigError

_ALL = frozenset(("0.0.0.0", "::", "*"))  # noqa: S104 - compared with, not bound to
_LOCALHOST = "tcp://localhost:"
LONGEST_SOCKET_PATH = 107  # bytes; sun_path of unix(7) without its final zero
ZMQ_DOORS = ("frigate_bind", "imagezmq_bind")  # settings of addresses for clients that show no key


def check_addresses(config: ServerConfig) -> None:
    """Refuse what two settings want at once, and plain tcp where other machines can reach it. Raises ConfigError.

    Whoever reaches an address without keys may send pictures and load models, so that must be said out loud.
    """
    for place in (*config.http, *config.grpc):
        check_host_port(place)
    _check_shared(config)
    for alias in config.alias:
        if not all(alias.partition("=")[::2]):
            raise ConfigError(f"alias {alias!r} is not of the form OTHER=NAME, for example coco/3=detector")
    others = [alias.partition("=")[0] for alias in config.alias]
    if again := next((other for other in others if others.count(other) > 1), None):
        raise ConfigError(f"alias {again!r} is given twice; give it once")
    _check_keyless(config)
    if config.keys is None and not config.insecure:
        zmq_doors = (address for setting in ("bind", *ZMQ_DOORS) for address in getattr(config, setting))
        check_unreachable((*config.http, *config.grpc), zmq_doors)


def _check_keyless(config: ServerConfig) -> None:
    """Raises ConfigError where clients that show no key would come in beside keys, and nothing says who may."""
    for network in config.keyless_from:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise ConfigError(
                f"keyless_from is {show(network)}: {error}; expected 10.0.0.7 or 192.168.1.0/24"
            ) from None
    if config.keys is None:
        return
    for setting in ZMQ_DOORS:
        for address in getattr(config, setting):
            said = config.keyless_from and address.startswith("tcp://")
            if not said and socket_path(address) is None:  # an abstract socket has no file, and so no mode
                raise ConfigError(
                    f"{setting} {address} cannot be used with keys: those clients have no way to show one. Name the "
                    "addresses that need none with --keyless-from, or listen at ipc://PATH, for this user alone"
                )


def check_unreachable(places: Iterable[str], addresses: Iterable[str]) -> None:
    """Raises ConfigError where other machines reach a HOST:PORT of `places`, or one of the `addresses`."""
    for place in places:
        if not _is_loopback(place.rpartition(":")[0].strip("[]")):
            raise ConfigError(_reachable(place))
    for address in addresses:
        if address.startswith("tcp://") and not _is_loopback(_split_tcp(address)[0]):
            raise ConfigError(_reachable(address))


def _check_shared(config: ServerConfig) -> None:
    """Raises ConfigError where two settings name the same port or socket: found now, and not when all models stand."""
    taken: list[tuple[str, str, str]] = []  # setting, host, port; of a socket its path and ""
    for setting, address in listened(config):
        host, port = ("ipc", address) if address.startswith("ipc://") else _host_and_port(address)
        for other, other_host, other_port in taken:
            same = host == other_host or (setting != other and {host, other_host} & _ALL)
            if same and port == other_port and port not in ("0", "*"):
                both = f"{other} and {setting} name" if other != setting else f"{setting} names twice"
                raise ConfigError(f"{both} the same place to listen at, {address}; give each its own")
        taken.append((setting, host, port))


def listened(config: ServerConfig) -> Iterator[tuple[str, str]]:
    """Every setting that has an address, and the address."""
    for setting in ("bind", "http", "grpc", *ZMQ_DOORS):
        yield from ((setting, address) for address in getattr(config, setting))
    if config.metrics_port:
        yield "metrics_port", f"{config.metrics_host}:{config.metrics_port}"


def _host_and_port(address: str) -> tuple[str, str]:
    """Of tcp://HOST:PORT or HOST:PORT; without brackets, loopback under one name."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return {"localhost": "127.0.0.1"}.get(host, host.strip("[]")), port


def _reachable(address: str) -> str:
    return (
        f"{address} can be reached from other machines, and nothing says who may connect. Make keys with "
        "`parallel-infer keys` and give --keys FOLDER, or bind to 127.0.0.1, or say --insecure "
        "if everybody who reaches this port may use the server"
    )


def check_host_port(place: str) -> None:
    """Raises ConfigError unless `place` is HOST:PORT, an IPv6 address in brackets."""
    host, colon, port = place.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) <= 65535) or "/" in host:
        raise ConfigError(f"{place!r} is no address of a door; HOST:PORT is needed, for example 127.0.0.1:8000")


def socket_path(address: str) -> Path | None:
    """The socket's file of an ipc address; None for tcp, and for a name in the abstract namespace, which has none."""
    path = address.removeprefix("ipc://")
    return None if path == address or path.startswith("@") else Path(path)


def is_local(address: str) -> bool:
    """Whether only this machine can reach an address."""
    return address.startswith("ipc://") or _is_loopback(_split_tcp(address)[0])


def tcp_address(host: str, port: str) -> str:
    """tcp://HOST:PORT, an IPv6 address in brackets."""
    return f"tcp://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{port}"


def check_forms(addresses: list[str], bind: str) -> None:
    """Refuse what cannot be listened on. `bind` names the setting and its source. Raises ConfigError."""
    if not addresses:
        raise ConfigError(f"{bind} is empty: nobody could connect; expected for example tcp://127.0.0.1:5555")
    for address in addresses:
        _check_form(address, bind)
    _check_twice(addresses, bind)


def absolute_address(address: str, folder: Path) -> str:
    """An ipc address with its path made absolute, from `folder`; of others localhost becomes 127.0.0.1."""
    path = address.removeprefix("ipc://")
    if address.startswith(_LOCALHOST):  # ZeroMQ asks /etc/hosts, which in some containers does not know it
        return f"tcp://127.0.0.1:{address.removeprefix(_LOCALHOST)}"
    # "@" starts a name in Linux' abstract namespace, which is no path
    return address if path in (address, "") or path.startswith("@") else f"ipc://{os.path.abspath(folder / path)}"


def _check_twice(addresses: list[str], bind: str) -> None:
    twice = [address for address in addresses if addresses.count(address) > 1 and not address.endswith((":*", ":0"))]
    if twice:
        raise ConfigError(f"{bind} names {twice[0]} twice")


def _check_form(address: str, bind: str) -> None:
    if address.startswith("ipc://"):
        _check_socket_path(address.removeprefix("ipc://"), bind)
        return
    host, port = _split_tcp(address, bind)
    if not (port == "*" or (port.isdecimal() and int(port) <= 65535)):
        raise ConfigError(f"{bind} is {show(address)}: {port!r} is no port; expected 0 to 65535, 0 for any free one")
    if not is_local_name(host):
        raise ConfigError(
            f"{bind} is {show(address)}: {host!r} is neither an IP address nor a network interface of this machine; "
            "expected for example tcp://127.0.0.1:5555, or tcp://0.0.0.0:5555 for all interfaces"
        )


def _check_socket_path(path: str, bind: str) -> None:
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise ConfigError(f"{bind} is a path that is no UTF-8, which ZeroMQ cannot listen on") from None
    if not 0 < size <= LONGEST_SOCKET_PATH:
        raise ConfigError(
            f"{bind} is {show('ipc://' + path)}: a socket's path has 1 to {LONGEST_SOCKET_PATH} bytes, this one {size}"
        )


def _split_tcp(address: str, bind: str = "bind") -> tuple[str, str]:
    """Host and port of tcp://HOST:PORT; the brackets of an IPv6 address are taken off."""
    match = re.fullmatch(r"tcp://(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]/]+)):(?P<port>[^:/]+)", address)
    if match is None:
        raise ConfigError(f"{bind} is {show(address)}; expected tcp://IP:PORT or ipc://PATH")
    return match["v6"] or match["host"], match["port"]


def is_local_name(host: str) -> bool:
    """Whether a host can be listened on here: an IP address, an interface, localhost or all of them."""
    return host in ("*", "localhost") or _ip(host) is not None or host in _interfaces()


def _is_loopback(host: str) -> bool:
    ip = _ip(host)
    return ip.is_loopback if ip is not None else host in ("localhost", "lo")


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _interfaces() -> list[str]:
    return [name for _, name in socket.if_nameindex()]
