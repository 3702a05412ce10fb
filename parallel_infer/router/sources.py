"""Where a router's members come from: addresses, the addresses of a name (DNS), the lines of a file.

tcp://HOST:PORT  ipc://PATH      a member, called by its address
NAME=ADDRESS                     one with a name of its own
dns:NAME:PORT                    each address of a name, such as that of a headless Service of Kubernetes
file:PATH                        each line, `ADDRESS` or `NAME ADDRESS`; comments begin with #
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from parallel_infer.errors import ConfigError

Listed = tuple[str, str]  # name and address
Resolve = Callable[[str, int], Sequence[str]]
_DNS, _FILE = "dns:", "file:"
_MOST_BYTES = 4 << 20  # of a file of members
_NAME = re.compile(r"[^\s=#,]{1,128}")
_TCP = re.compile(r"tcp://(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<host>[^:/\[\]\s,]+)):(?P<port>\d{1,5})")
_EXPECTED = "expected tcp://HOST:PORT, ipc://PATH, NAME=ADDRESS, dns:NAME:PORT or file:PATH"


class Found(NamedTuple):
    """What a look at all sources has found."""

    members: list[Listed]
    problems: list[str]  # of sources that could not be read; what they said last counts


class Sources:
    """All of them. What a source said last counts for as long as it cannot be read."""

    def __init__(self, texts: Iterable[str], resolve: Resolve | None = None) -> None:
        """Raises ConfigError for what is no member and no source, and where nothing is named."""
        self._resolve = resolve or addresses_of
        self._fixed: list[Listed] = []
        self._moving: dict[str, list[Listed]] = {}
        for text in texts:
            if text.startswith((_DNS, _FILE)):
                if text.startswith(_DNS):
                    _split_dns(text)
                self._moving[text] = []
            else:
                self._fixed.append(member_of(text))
        if not self._fixed and not self._moving:
            raise ConfigError("no member is named: --member tcp://HOST:PORT, --members dns:NAME:PORT or file:PATH")
        check_distinct(self._fixed)

    @property
    def change(self) -> bool:
        """Whether it makes sense to look again."""
        return bool(self._moving)

    def look(self) -> Found:
        """All members now. May take as long as a name server or a file system does; raises nothing."""
        problems = []
        for text in self._moving:
            try:
                self._moving[text] = self._look_at(text)
            except ConfigError as error:
                problems.append(str(error))
        members = list(self._fixed)
        for text, found in self._moving.items():
            try:
                check_distinct([*members, *found])
            except ConfigError as error:
                problems.append(f"{text} is left out: {error}")
            else:
                members += found
        return Found(members, problems)

    def _look_at(self, text: str) -> list[Listed]:
        if text.startswith(_FILE):
            return members_of_file(Path(text.removeprefix(_FILE)))
        host, port = _split_dns(text)
        try:
            addresses = sorted(set(self._resolve(host, port)))
        except OSError as error:
            raise ConfigError(f"{text}: the name {host!r} does not resolve ({error.strerror or error})") from None
        return [(address, address) for address in addresses]


def member_of(text: str) -> Listed:
    """The member that `ADDRESS` or `NAME=ADDRESS` stands for. Raises ConfigError."""
    name, separator, address = text.partition("=")
    if not separator or "://" in name:
        name = address = text
    elif not _NAME.fullmatch(name):
        raise ConfigError(f"the member {text!r:.100} has a name of other than 1 to 128 characters without blanks")
    check_address(address)
    return name, address


def check_address(address: str) -> None:
    """Raises ConfigError for what is no address of a server."""
    if address.startswith("ipc://") and len(address) > len("ipc://"):
        return
    found = _TCP.fullmatch(address)
    if found is None:
        raise ConfigError(f"the member {address!r:.100} is no address of a server; {_EXPECTED}")
    if not 0 < int(found["port"]) < 1 << 16:
        raise ConfigError(f"the member {address!r:.100} has the port {found['port']}; a port is 1 to 65535")


def check_distinct(members: Iterable[Listed]) -> None:
    """Raises ConfigError for two members under one name, or one under two."""
    names: dict[str, str] = {}
    addresses: dict[str, str] = {}
    for name, address in members:
        if name in names and names[name] != address:
            raise ConfigError(f"two members are called {name!r}: {names[name]} and {address}; give each its own name")
        if address in addresses:
            raise ConfigError(f"the member {address} is named twice")
        names[name] = addresses[address] = address


def members_of_file(path: Path) -> list[Listed]:
    """The members that a file lists. Raises ConfigError that names the line."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ConfigError(f"the file of members {path} has more than {_MOST_BYTES} bytes")
        lines = content.decode().splitlines()
    except OSError as error:
        raise ConfigError(f"the file of members {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"the file of members {path} is no text") from None
    found = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) > 2:
            raise ConfigError(f"{path}, line {number}: {line.strip()!r:.100} is neither ADDRESS nor NAME ADDRESS")
        try:
            found.append(member_of("=".join(words)))
        except ConfigError as error:
            raise ConfigError(f"{path}, line {number}: {error}") from None
    try:
        check_distinct(found)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return found


def addresses_of(host: str, port: int) -> list[str]:
    """tcp://IP:PORT of each address of a name. Raises OSError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(f"{error}") from None
    return [_tcp(str(place[0]), port) for _, _, _, _, place in found]


def endpoint_of(address: str, resolve: Resolve | None = None) -> str:
    """Where to connect to for an address: with an IP address instead of a name. Raises OSError."""
    found = _TCP.fullmatch(address)
    if found is None:
        return address
    if found["v6"] or re.fullmatch(r"[\d.]+", found["host"]):
        return address
    return (resolve or addresses_of)(found["host"], int(found["port"]))[0]


def _tcp(ip: str, port: int) -> str:
    return f"tcp://[{ip}]:{port}" if ":" in ip else f"tcp://{ip}:{port}"


def _split_dns(text: str) -> tuple[str, int]:
    host, _, port = text.removeprefix(_DNS).rpartition(":")
    if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ConfigError(f"{text!r:.100} is no name and port to look for members at; expected dns:NAME:PORT")
    return host.strip("[]"), int(port)
