"""Ray's head as far as `deploy` knows it: a real HTTP server that keeps what it is given and tells how it goes on."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

APPLICATIONS = "/api/serve/applications/"


def machine(ip: str, **resources: float) -> dict[str, Any]:
    return {"node_ip": ip, "state": "ALIVE", "resources_total": {"CPU": 4.0, **resources}}


class FakeHead:
    """`states` are what an application is in at each look after it was deployed; the last one stays."""

    def __init__(self, machines: list[dict[str, Any]], states: list[str] | None = None, message: str = "") -> None:
        self.machines = machines
        self.states = states or ["RUNNING"]
        self.message = message
        self.configs: dict[str, dict[str, Any]] = {}
        self.given: list[dict[str, Any]] = []  # every file
        self.tokens: list[str | None] = []
        self.refusal: tuple[int, str] | None = None
        self.address = ""
        self._looks = 0
        self._deployed = 0.0

    def applications(self) -> dict[str, Any]:
        state = self.states[min(self._looks, len(self.states) - 1)]
        self._looks += 1
        found = {name: self._details(config, state) for name, config in self.configs.items()}
        return {"applications": found, "proxies": {}, "proxy_location": "Disabled" if found else None}

    def deploy(self, file: dict[str, Any]) -> None:
        self.given.append(file)
        self.configs = {application["name"]: application for application in file["applications"]}
        self._looks, self._deployed = 0, time.time()

    def _details(self, config: dict[str, Any], state: str) -> dict[str, Any]:
        deployments = config.get("deployments") or [{"num_replicas": 0}]
        count = deployments[0].get("num_replicas") or deployments[0].get("autoscaling_config", {}).get(
            "min_replicas", 0
        )
        replicas = [
            {"node_ip": self.machines[number]["node_ip"], "state": "RUNNING" if state == "RUNNING" else "STARTING"}
            for number in range(min(count, len(self.machines)))
        ]
        deployment = {"replicas": replicas, "target_num_replicas": count, "message": self.message}
        details = {"status": state, "message": "", "last_deployed_time_s": self._deployed}
        return details | {"deployed_app_config": config, "deployments": {"one": deployment}}


@contextlib.contextmanager
def listening(head: FakeHead) -> Iterator[FakeHead]:
    """The head at an address of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nodes = {"data": {"result": {"result": head.machines}}}
            self.answer(head.applications() if self.path == APPLICATIONS else nodes)

        def do_PUT(self) -> None:
            head.deploy(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.answer(None)

        def answer(self, found: Any) -> None:
            head.tokens.append(self.headers.get("Authorization"))
            code, content = head.refusal or (200, "" if found is None else json.dumps(found))
            self.send_response(code)
            self.send_header("Content-Length", str(len(content.encode())))
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False  # server_close waits for them
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    head.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield head
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
