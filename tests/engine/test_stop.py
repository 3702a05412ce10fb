"""A stop loses nothing, whichever way it is asked for, whatever answers weigh and however clients read."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import psutil
import pytest
import zmq
from click.testing import CliRunner

from parallel_infer.cli import main
from parallel_infer.errors import InferError, ServerStopping, ServerUnavailable
from tests.engine import graphs
from tests.engine.graphs import job
from tests.engine.serving import Server, eventually, short_folder

TOML = """
bind = ["{bind}"]
provider = "cpu"
threads = 1
decode_workers = 1
postprocess_workers = 1
shared_memory_mb = 16
max_payload_mb = 1
{more}
[models.large]
path = "{folder}/large.onnx"
[models.work]
path = "{folder}/work.onnx"
max_batch_size = 1
instances = 1
"""
COUNT = 24
SLOW = {"rcvhwm": 1, "rcvbuf": 65536}  # options of a client that reads when it is told to, and buffers little


@pytest.fixture
def serve() -> Iterator[Any]:
    """Starts a server: `serve(transport, more TOML)`; what still runs at the end is killed."""
    servers: list[Server] = []

    def start(transport: str = "ipc", more: str = "") -> Server:
        folder = short_folder()
        graphs.large(folder / "large.onnx")
        graphs.work(folder / "work.onnx")
        bind = "tcp://127.0.0.1:0" if transport == "tcp" else f"ipc://{folder}/door"
        (folder / "server.toml").write_text(TOML.format(bind=bind, folder=folder, more=more))
        server = Server(folder, "--config", str(folder / "server.toml"))
        servers.append(server)
        server.wait_until_ready()
        return server

    yield start
    for server in servers:
        server.close()
        shutil.rmtree(server.folder, ignore_errors=True)


def ended(server: Server) -> tuple[int, str]:
    """The exit code, and the line about what was owed."""
    code = server.wait()
    (line,) = [line for line in server.log.read_text().splitlines() if "stopped: " in line]
    return code, line.partition("stopped: since the stop began, ")[2]


class Wire:
    """A client of its own making, that reads when it is told to."""

    def __init__(self, address: str, **options: int) -> None:
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.rcvtimeo = 60_000
        for name, value in options.items():
            setattr(self.socket, name, value)
        self.socket.connect(address)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()
        self._context.term()

    def ask(self, kind: str, number: int, **fields: Any) -> None:
        self.socket.send(msgpack.packb({"v": 1, "type": kind, "id": number, **fields}))

    def infer(self, model: str, number: int, row: np.ndarray, timeout: float = 30.0) -> None:
        header = {"v": 1, "type": "infer", "id": number, "model": model, "kind": "tensors", "timeout": timeout}
        header["tensors"] = [["x", "float32", [len(row)]]]
        self.socket.send_multipart([msgpack.packb(header), row.tobytes()])

    def reply(self) -> Any:
        header, *payload = self.socket.recv_multipart()
        return {**msgpack.unpackb(header, strict_map_key=False), "payload": payload[0] if payload else b""}


def everybody_is_in(server: Server, count: int) -> None:
    with server.client() as client:
        eventually(lambda: client.status()["gateway"]["counts"]["bytes_in"] >= count * 4)


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
def test_large_answers_that_are_owed_arrive(serve, transport):
    server = serve(transport)
    with server.client() as client:
        futures = [client.submit("large", np.float32([value])) for value in range(COUNT)]
        everybody_is_in(server, COUNT)
        server.process.send_signal(signal.SIGTERM)
        for value, future in enumerate(futures):
            answer = future.result(60).tensors["y"]
            assert answer.shape == (1 << 18,)
            assert answer[0] == answer[-1] == value
    code, said = ended(server)
    assert code == 0
    assert "0 abandoned" in said
    assert server.segments() == []


def by_signal(number: int) -> Any:
    return lambda server: server.process.send_signal(number)


def by_command(server: Server) -> None:
    result = CliRunner().invoke(main, ["stop", "--server", server.address])
    assert result.exit_code == 0, result.output
    assert "is stopping" in result.stdout


@pytest.mark.parametrize("stop", [by_signal(signal.SIGTERM), by_signal(signal.SIGINT), by_command])
def test_everybody_who_asks_without_a_pause_gets_a_reply(serve, stop):
    server = serve()
    outcomes: list[InferError] = []
    answers: list[int] = []

    def ask(client: Any) -> None:
        while True:
            try:
                client.infer("large", np.float32([1]))
                answers.append(1)
            except InferError as error:
                outcomes.append(error)
                return

    with server.client(timeout=60) as client:
        threads = [threading.Thread(target=ask, args=(client,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(answers) > 20)
        stop(server)
        for thread in threads:
            thread.join(50)
        assert [type(error) for error in outcomes] == [ServerStopping] * len(threads)
    assert ended(server)[0] == 0


def test_while_it_drains_new_jobs_are_refused_by_name_and_questions_answered(serve):
    """Whoever has not read its replies keeps the door open, however long a busy machine takes for the rest."""
    server = serve(more="drain_timeout_ms = 60000")
    worker = server.child("infer-work-0")
    with Wire(server.address, **SLOW) as slow, Wire(server.address) as early, Wire(server.address) as late:
        for number in range(COUNT):
            slow.infer("large", number, np.float32([number]))
        late.ask("hello", 1)
        assert late.reply()["result"]["max_payload"] == 1 << 20
        eventually(lambda: counts(late).get("answered", 0) == COUNT)
        worker.suspend()
        early.infer("work", 1, job(value=7))
        eventually(lambda: counts(late)["bytes_in"] == (COUNT + 3) * 4)
        server.process.send_signal(signal.SIGTERM)
        notice = late.reply()
        assert (notice["id"], notice["reason"]) == (0, "stopping")
        late.infer("work", 2, job(value=8))
        refused = late.reply()
        assert (refused["id"], refused["code"], refused["reason"]) == (2, "SERVER_UNAVAILABLE", "stopping")
        late.ask("lend", 3, slots=1, size=4096)
        assert late.reply()["reason"] == "stopping"
        late.ask("ready", 4)
        assert late.reply()["result"]["ready"] is False
        late.ask("status", 5)
        assert late.reply()["result"]["draining"] is True
        with contextlib.suppress(psutil.NoSuchProcess):  # after some seconds it counted as hung; another has its job
            worker.resume()
        answer = early.reply()
        assert (answer["type"], np.frombuffer(answer["payload"], np.float32)[0]) == ("answer", 7)
        assert {slow.reply()["id"] for _ in range(COUNT)} == set(range(COUNT))
        assert ended(server) == (0, "1 jobs answered, 1 refused, 0 abandoned")


def test_what_is_not_answered_in_time_is_told_and_makes_the_exit_code_1(serve):
    server = serve(more="drain_timeout_ms = 300")
    server.child("infer-work-0").suspend()
    with server.client(timeout=60) as client:
        futures = [client.submit("work", job()) for _ in range(3)]
        everybody_is_in(server, 9)
        server.process.send_signal(signal.SIGTERM)
        for future in futures:
            error = future.exception(50)
            assert isinstance(error, ServerUnavailable)
            assert not isinstance(error, ServerStopping)
            assert "drain_timeout_ms" in str(error)
    code, said = ended(server)
    assert code == 1
    assert said.startswith("0 jobs answered, 0 refused, 3 abandoned")
    assert "drain_timeout_ms" in said
    assert server.segments() == []


def test_a_second_signal_ends_the_waiting_and_says_so_to_who_waits(serve):
    server = serve(more="drain_timeout_ms = 600000")
    worker = server.child("infer-work-0")
    worker.suspend()
    with server.client(timeout=300) as client:
        future = client.submit("work", job())
        everybody_is_in(server, 3)
        server.process.send_signal(signal.SIGTERM)
        with Wire(server.address) as wire:
            eventually(lambda: is_draining(wire))
        server.process.send_signal(signal.SIGTERM)
        assert "drain_timeout_ms" in str(future.exception(50))
        worker.resume()  # who stands still is waited for
    assert ended(server)[0] == 1


def counts(wire: Wire) -> dict[str, int]:
    wire.ask("status", 1)
    found: dict[str, int] = wire.reply()["result"]["gateway"]["counts"]
    return found


def is_draining(wire: Wire) -> bool:
    wire.ask("status", 1)
    return bool(wire.reply()["result"]["draining"])


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
def test_a_slow_reader_gets_what_it_is_owed(serve, transport):
    server = serve(transport, "drain_timeout_ms = 60000")
    with Wire(server.address, **SLOW) as wire:
        for number in range(COUNT):
            wire.infer("large", number, np.float32([number]))
        with server.client() as client:
            eventually(lambda: client.status()["gateway"]["counts"].get("answered", 0) == COUNT)
        server.process.send_signal(signal.SIGTERM)
        with Wire(server.address) as other:
            eventually(lambda: is_draining(other))
            other.infer("large", 9, np.float32([1]))
            assert other.reply()["reason"] == "stopping"  # while it waits it says no to others
        found = {}
        for _ in range(COUNT):
            reply = wire.reply()
            found[reply["id"]] = np.frombuffer(reply["payload"], np.float32)
            assert server.process.poll() is None or len(found) > COUNT // 2
        assert sorted(found) == list(range(COUNT))
        assert all((values == number).all() and len(values) == 1 << 18 for number, values in found.items())
        assert ended(server) == (0, "0 jobs answered, 1 refused, 0 abandoned")


def test_who_never_reads_holds_nobody_up_beyond_the_time(serve):
    server = serve(more="drain_timeout_ms = 1000")
    with Wire(server.address, **SLOW) as wire, server.client() as client:
        for number in range(COUNT):
            wire.infer("large", number, np.float32([number]))
        eventually(lambda: client.status()["gateway"]["counts"].get("answered", 0) == COUNT)
        future = client.submit("large", np.float32([5]))
        everybody_is_in(server, COUNT + 1)
        server.process.send_signal(signal.SIGTERM)
        assert future.result(30).tensors["y"][0] == 5
        code, said = ended(server)
    assert code == 1
    assert "1 clients had not taken all their replies" in said


def test_a_pause_of_all_processes_kills_no_worker_and_loses_no_job(serve):
    """What came meanwhile is looked at before the clock, and nobody is blamed for the time."""
    server = serve()
    with server.client(timeout=60) as client:
        futures = [client.submit("work", job(steps=2000, value=value)) for value in range(COUNT)]
        everybody_is_in(server, COUNT * 3)
        everybody = [server.supervisor, *server.children().values()]
        for process in everybody:
            process.suspend()
        threading.Event().wait(2.0)  # longer than any worker has for such a job
        for process in everybody:
            os.kill(process.pid, signal.SIGCONT)
        assert [future.result(30).tensors["value"][0] for future in futures] == list(range(COUNT))
        processes = client.status()["processes"]
        assert {name: process["restarts"] for name, process in processes.items() if process["restarts"]} == {}
    assert server.stop() == 0


def test_a_reload_in_between_and_then_a_stop_lose_nothing(serve):
    server = serve()
    config = server.folder / "server.toml"
    with server.client(timeout=60) as client:
        futures = [client.submit("work", job(steps=2000, value=value)) for value in range(COUNT)]
        everybody_is_in(server, COUNT * 3)
        config.write_text(config.read_text().replace("max_batch_size = 1", "max_batch_size = 2"))
        server.process.send_signal(signal.SIGHUP)
        server.process.send_signal(signal.SIGTERM)
        assert [future.result(30).tensors["value"][0] for future in futures] == list(range(COUNT))
    assert ended(server)[0] == 0


@pytest.mark.parametrize("victim", ["dispatcher", "infer-work-0", "postprocess-0"])
def test_who_dies_while_the_server_drains_is_replaced_and_nothing_is_lost(serve, victim):
    server = serve(more="drain_timeout_ms = 60000")
    worker = server.child("infer-work-0")
    worker.suspend()
    with server.client(timeout=60) as client, Wire(server.address) as wire:
        futures = [client.submit("work", job(value=value)) for value in range(COUNT)]
        everybody_is_in(server, COUNT * 3)
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: is_draining(wire))
        server.child(victim).kill()
        if victim != "infer-work-0":
            worker.resume()
        assert [future.result(60).tensors["value"][0] for future in futures] == list(range(COUNT))
    assert ended(server) == (0, f"{COUNT} jobs answered, 0 refused, 0 abandoned")


def test_a_gateway_that_dies_while_the_server_drains_is_told(serve):
    server = serve(more="drain_timeout_ms = 60000")
    worker = server.child("infer-work-0")
    worker.suspend()
    with server.client(timeout=60) as client, Wire(server.address) as wire:
        futures = [client.submit("work", job(value=value)) for value in range(COUNT)]
        everybody_is_in(server, COUNT * 3)
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: is_draining(wire))
        server.child("gateway").kill()
        errors = [future.exception(60) for future in futures]
        assert all(isinstance(error, ServerUnavailable) for error in errors)
        worker.resume()  # who stands still is waited for
    code, said = ended(server)
    assert code == 1
    assert "the gateway died meanwhile" in said
