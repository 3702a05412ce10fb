"""What systemd is told: when a server is ready, reads again, lives and stops, over a socket file or an abstract one."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from parallel_infer.supervisor.service_manager import ServiceManager
from tests.engine.serving import Server
from tests.engine.test_model_copies import configure, folder, write  # noqa: F401  # folder is a fixture

Fields = dict[str, str]


class Manager:
    """A service manager that listens."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(60)

    def hear(self) -> Fields:
        return dict(line.split("=", 1) for line in self._socket.recv(65536).decode().splitlines())

    def wait_for(self, name: str) -> Fields:
        while name not in (fields := self.hear()):
            pass
        return fields

    def nothing_more(self) -> bool:
        self._socket.setblocking(False)
        try:
            return not self._socket.recv(65536)
        except BlockingIOError:
            return True

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Manager]:
    address = f"@pi-{secrets.token_hex(6)}" if request.param == "abstract" else str(tmp_path / "notify")
    listening = Manager(address)
    yield listening
    listening.close()


def test_a_service_manager_hears_of_a_server_from_its_start_to_its_end(manager: Manager, folder: Any) -> None:  # noqa: F811
    configure(folder, {"m": write(folder / "models" / "m.onnx", 2)})
    told = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "1500000"}
    server = Server(folder, "--config", str(folder / "server.toml"), environment=told)
    try:
        assert int(manager.hear()["EXTEND_TIMEOUT_USEC"]) > 120_000_000
        server.wait_until_ready()
        ready = manager.wait_for("READY")
        assert ready == {"READY": "1", "STATUS": f"serving m at {server.address}"}
        assert manager.wait_for("WATCHDOG") == {"WATCHDOG": "1"}
        for child in server.children().values():
            assert not set(told) & set(child.environ()), "a child could speak for the server"
        before = time.monotonic()
        server.process.send_signal(signal.SIGHUP)
        reloading = manager.wait_for("RELOADING")
        assert before <= int(reloading["MONOTONIC_USEC"]) / 1e6 <= time.monotonic()
        assert manager.wait_for("READY")["STATUS"].startswith("serving m")
        server.process.send_signal(signal.SIGTERM)
        assert manager.wait_for("STOPPING")["STOPPING"] == "1"
        assert server.wait() == 0
    finally:
        server.close()


def test_the_watchdog_is_told_of_life_alone(manager: Manager) -> None:
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
    speaking = ServiceManager(environment)
    assert environment == {}
    assert speaking.due == float("inf"), "nothing is due before it is ready"
    speaking.ready("ok")
    manager.hear()
    now = speaking.due
    speaking.beat(now, True)
    assert manager.hear() == {"WATCHDOG": "1"}
    assert speaking.due == now + 10
    speaking.beat(now + 1, True)
    speaking.beat(now + 10, False)
    assert manager.nothing_more()
    assert now + 10 < speaking.due <= now + 11, "it is tried again soon"
    speaking.close()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "/nowhere/at/all"},
        {"NOTIFY_SOCKET": "vsock:2:1234"},
        {"WATCHDOG_USEC": "1000"},
    ],
    ids=str,
)
def test_without_a_service_manager_nothing_is_said(environment: dict[str, str]) -> None:
    silent = ServiceManager(environment)
    silent.starting("x", 1)
    silent.ready("x")
    silent.reloading()
    silent.stopping("x", 1)
    assert silent.due == float("inf")
    silent.close()


@pytest.mark.parametrize("wrong", [{"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_PID": "1"}], ids=str)
def test_a_watchdog_that_is_none_or_is_anothers_is_not_told(manager: Manager, wrong: dict[str, str]) -> None:
    given = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "1000000", **wrong}
    speaking = ServiceManager(given)
    speaking.ready("ok")
    assert speaking.due == float("inf")
    speaking.close()


def test_a_manager_that_reads_nothing_holds_nobody_up(manager: Manager) -> None:
    speaking = ServiceManager({"NOTIFY_SOCKET": manager.address})
    for _ in range(5000):
        speaking.ready("x" * 100)
    assert speaking.listens
    speaking.close()
