"""Who may use a door that web pages and programs of strangers can reach. Pure, but for the keys' folder.

Without keys the server is for this machine's own programs. A browser is one of them, and runs pages of strangers; so
a request must name a host that is ours, and one that changes or computes something must not come from another site.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from parallel_infer.errors import Unauthorized

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")


class WebPages:
    """Tells requests of web pages of other sites from those of programs and of our own page."""

    def __init__(self, bound: Iterable[str]) -> None:
        """`bound` are the hosts the door listens at; a wildcard among them allows every host."""
        hosts = {host.lower() for host in bound}
        self._any = bool(hosts & {"0.0.0.0", "::", "[::]", "*"})  # noqa: S104 - compared with, not bound to
        self._hosts = hosts | set(_LOOPBACK)

    def check(self, method: str, headers: Mapping[str, str]) -> None:
        """Raises Unauthorized for a request of a foreign page."""
        host = _without_port(headers.get("Host", ""))
        if not self._any and host and host not in self._hosts:
            raise Unauthorized(
                f"the host {host!r} is not one that this server listens at; use its address, or configure keys"
            )
        if method in ("GET", "HEAD", "OPTIONS"):
            return
        origin = headers.get("Origin", "")
        foreign = headers.get("Sec-Fetch-Site", "") in ("cross-site", "same-site")
        if foreign or (origin and not self._ours(origin, headers.get("Host", ""))):
            raise Unauthorized("a web page of another site may not use this server; configure keys to allow programs")

    @staticmethod
    def _ours(origin: str, host: str) -> bool:
        return origin.partition("://")[2].lower() == host.lower()


def _without_port(host: str) -> str:
    host = host.strip().lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
