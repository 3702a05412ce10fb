"""A server with every door, and ways to ask it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from tests.engine.serving import Server, free_port

TIMEOUT = 60.0  # seconds; a file's own graph is loaded at its first use


class Doors(NamedTuple):
    """The server and the addresses of its doors: HOST:PORT of HTTP and gRPC, tcp:// of the ZeroMQ doors."""

    server: Server
    http: str
    grpc: str
    frigate: str
    imagezmq: str


def start(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> Doors:
    """A server with every door and a detector, besides what `arguments` say."""
    http, grpc, frigate, imagezmq = (f"127.0.0.1:{free_port()}" for _ in range(4))
    zmq_doors = ("--frigate-bind", f"tcp://{frigate}", "--imagezmq-bind", f"tcp://{imagezmq}")
    bind = ("--bind", f"ipc://{folder}/door", "--http", http, "--grpc", grpc, *zmq_doors)
    server = Server(folder, *bind, "--model", "detector=zoo:detector", *arguments, environment=environment)
    return Doors(server, http, grpc, f"tcp://{frigate}", f"tcp://{imagezmq}")


def ask(doors: Doors, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    """Status and answer, JSON where it is some; `_` in the names of headers stands for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"http://{doors.http}{path}", data=body, headers=named)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            status, data, kind = answer.status, answer.read(), answer.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        status, data, kind = error.code, error.read(), error.headers["Content-Type"]
    return status, json.loads(data) if kind.startswith("application/json") else data


def work_request(*rows: tuple[float, float, float]) -> bytes:
    """A request in JSON for the model `work` (tests.engine.graphs)."""
    data = [number for row in rows for number in row]
    tensor = {"name": "x", "datatype": "FP32", "shape": [len(rows), 3], "data": data}
    return json.dumps({"inputs": [tensor]}).encode()
