"""Who may use a door that web pages and programs of strangers can reach. Pure, but for the keys' folder.

Without keys the server is for programs of its own machine, or network. A browser is one of them, and runs pages of
strangers; so a request must name a host that is ours, and one that changes or computes something must not come from
another site. The host's name matters because a stranger's name may be made to lead to our address (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from parallel_infer.errors import Unauthorized

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")
_WILDCARDS = {"0.0.0.0", "::", "[::]", "*", ""}  # noqa: S104 - compared with, not bound to
# Ends of names that are given out within a network and in public to nobody (RFC 2606, 6762 and 8375, ICANN).
_PRIVATE = (
    ".lan",
    ".local",
    ".localhost",
    ".home",
    ".home.arpa",
    ".internal",
    ".intranet",
    ".corp",
    ".private",
    ".svc",
)
_SAFE = ("GET", "HEAD", "OPTIONS")


class WebPages:
    """Tells requests of web pages of other sites from those of programs and of our own page."""

    def __init__(self, bound: Iterable[str], further: Iterable[str] = ()) -> None:
        """`bound` are the hosts the door listens at, `further` other names that lead to it.

        At a wildcard address these are every IP address, this machine's name, and names that nobody owns in public
        (without a dot, or .lan, .local and such): what is left are names that a stranger may own.
        """
        hosts = {_undotted(host.lower()) for host in bound}
        self._wildcard = bool(hosts & _WILDCARDS)
        own = (socket.gethostname().lower(), socket.getfqdn().lower()) if self._wildcard else ()
        self._hosts = {*hosts - _WILDCARDS, *_LOOPBACK, *own, *(_undotted(host.lower()) for host in further)}
        self._last = ""  # a Host header that was found to be ours: nearly all requests have the same

    def check(self, method: str, headers: Mapping[str, str]) -> None:
        """Raises Unauthorized for a request of a foreign page."""
        if (given := headers.get("Host", "")) != self._last:
            self._check_host(given)
        if method in _SAFE:
            return
        origin = headers.get("Origin", "")
        foreign = headers.get("Sec-Fetch-Site", "").strip().lower() in ("cross-site", "same-site")
        if foreign or (origin and origin.partition("://")[2].lower() != headers.get("Host", "").strip().lower()):
            raise Unauthorized("a web page of another site may not use this server; configure keys to allow programs")

    def _check_host(self, given: str) -> None:
        host = _without_port(given)
        if host and not self._is_ours(host):
            raise Unauthorized(
                f"the host {host[:100]!r} is not one that this server listens at; use its address, name the host "
                "in the option http_hosts, or configure keys"
            )
        self._last = given

    def _is_ours(self, host: str) -> bool:
        if host in self._hosts:
            return True
        if not self._wildcard:
            return False
        return _is_address(host) or "." not in host or host.endswith(_PRIVATE)


class Networks:
    """Addresses and networks, as the option `keyless_from` gives them. Pure."""

    def __init__(self, given: Sequence[str]) -> None:
        """Raises ValueError for what is neither."""
        self._networks = [ipaddress.ip_network(network) for network in given]

    def hold(self, address: str) -> bool:
        """Whether an address is one of them; an IPv4 address may come in its IPv6 form."""
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        mapped = getattr(found, "ipv4_mapped", None) or found
        return any(mapped in network for network in self._networks)


MAY_NOT_MANAGE = (
    "loading, unloading and pictures of live sources take a key made with --manage; where there are no keys, a client "
    "on the server's own machine that comes over 127.0.0.1"
)


@lru_cache(256)
def is_of_this_machine(host: str) -> bool:
    """Whether a connection comes from a loopback address ("127.0.0.1", "::1", "[::1]") or a socket file ("")."""
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return not host
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _without_port(host: str) -> str:
    host = host.strip().lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return _undotted(host.partition(":")[0])


def _undotted(host: str) -> str:
    """A name without the dot that ends it where it is complete: both are one name."""
    return host.removesuffix(".")
