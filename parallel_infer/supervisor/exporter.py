"""The metrics page: a small HTTP server in threads of the supervisor, who touches no job.

It asks for the status as a client, through a door that only this user can reach, and only when somebody reads the page.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from parallel_infer.errors import ConfigError

_TIMEOUT = 2.0  # seconds the status may take; Prometheus waits 10


@contextlib.contextmanager
def metrics_page(host: str, port: int, server: str) -> Iterator[None]:
    """Serve the metrics of a server at http://host:port/metrics. Raises ConfigError where nobody can listen there."""
    from prometheus_client import CollectorRegistry, start_http_server  # first used here: most servers have no page

    from parallel_infer.client import Client
    from parallel_infer.metrics import ServerMetrics

    with Client(server, timeout=_TIMEOUT) as client:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(ServerMetrics(client.status))
        try:
            page, thread = start_http_server(port, host, registry)
        except OSError as error:
            raise ConfigError(f"cannot serve metrics at {host}:{port} (metrics_port): {error.strerror}") from None
        try:
            yield
        finally:
            page.shutdown()
            page.server_close()
            thread.join()
