"""The metrics page: a small HTTP server in threads of the supervisor, who touches no job.

It asks for the status as a client, through a door that only this user can reach, and only when somebody reads a page.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from parallel_infer.errors import ConfigError, InferError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from parallel_infer.client import Client

_TIMEOUT = 2.0  # seconds the status may take; Prometheus waits 10
_REMEMBERED = 1.0  # seconds for which the answer about health counts: asking costs a job of each model
_METHODS = ("GET", "HEAD")


@contextlib.contextmanager
def metrics_page(host: str, port: int, server: str) -> Iterator[None]:
    """Serve the metrics of a server at http://host:port/metrics, and whether it can answer at /health.

    Raises ConfigError where nobody can listen there.
    """
    from prometheus_client import CollectorRegistry, make_wsgi_app  # first used here: most servers have no page

    from parallel_infer.client import Client
    from parallel_infer.observe.metrics import ServerMetrics

    with Client(server, timeout=_TIMEOUT) as client:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(ServerMetrics(client.status))
        pages: dict[str, WSGIApplication] = {"/metrics": make_wsgi_app(registry), "/health": _Health(client)}
        try:
            server_class = type("_Server", (_Threads,), {"address_family": _family(host, port)})
            listening: WSGIServer = make_server(host, port, _site(pages), server_class, _Silent)
        except OSError as error:
            raise ConfigError(f"cannot serve metrics at {host}:{port} (metrics_port): {error.strerror}") from None
        thread = threading.Thread(target=listening.serve_forever, name="metrics", daemon=True)
        thread.start()
        try:
            yield
        finally:
            listening.shutdown()
            listening.server_close()
            thread.join()


def _family(host: str, port: int) -> socket.AddressFamily:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]


class _Threads(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, *args: object) -> None:
        """Nobody wants a line for each look."""


class _Health:
    """The page that says whether a picture gets through every stage of every model: 200 it does, 503 it does not."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._asked = -_REMEMBERED
        self._found: dict[str, Any] = {}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        with self._lock:
            if time.monotonic() - self._asked >= _REMEMBERED:
                self._found = self._ask()
                self._asked = time.monotonic()
            found = self._found
        status = "200 OK" if found["ready"] else "503 Service Unavailable"
        return _answer(start_response, status, json.dumps(found), **{"Content-Type": "application/json"})

    def _ask(self) -> dict[str, Any]:
        try:
            found = self._client.health()
        except InferError as error:
            return {"ready": False, "problem": f"{error.code}: {error}"}
        told = ("models", "doors")
        return {"ready": bool(found["ready"]), **{name: found[name] for name in told if name in found}}


def _site(pages: dict[str, WSGIApplication]) -> WSGIApplication:
    """The pages by their paths; 404 elsewhere, 405 for anything but looking."""

    def site(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        page, method = pages.get(environ.get("PATH_INFO", "")), environ["REQUEST_METHOD"]
        if page is None:
            body = _answer(start_response, "404 Not Found", f"there are {' and '.join(pages)}\n")
        elif method not in _METHODS:
            only = ", ".join(_METHODS)
            body = _answer(start_response, "405 Method Not Allowed", f"there is {only} alone\n", Allow=only)
        else:
            body = _whole(page, {**environ, "REQUEST_METHOD": "GET"}, start_response)
        return [] if method == "HEAD" else body

    return site


def _whole(page: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """A page in one piece, whose length is then told to those as well who ask for its head alone."""
    told: list[Any] = []

    def note(status: str, headers: list[tuple[str, str]], exc_info: object = None, /) -> Any:
        told.extend((status, headers))

    body = b"".join(page(environ, note))
    status, headers = told
    others = [(name, value) for name, value in headers if name.lower() != "content-length"]
    start_response(status, [*others, ("Content-Length", str(len(body)))])
    return [body]


def _answer(start_response: StartResponse, status: str, text: str, **headers: str) -> list[bytes]:
    body = text.encode()
    given = {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body)), **headers}
    start_response(status, list(given.items()))
    return [body]
