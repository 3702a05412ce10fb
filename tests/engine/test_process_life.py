"""Servers that are stopped, killed and broken: jobs are answered, what died is replaced, and nothing is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import psutil
import pytest
import zmq

from parallel_infer.errors import DeadlineExceeded, InferError, ServerUnavailable, UnknownModel
from parallel_infer.shm.segment import sweep
from tests.engine.graphs import job
from tests.engine.serving import Server, StartRefused, eventually, running, short_folder

SOLO = """
bind = ["{bind}"]
provider = "cpu"
threads = 1
decode_workers = 1
postprocess_workers = 1
shared_memory_mb = 16
max_payload_mb = 1
[models.work]
path = "{{models}}/work.onnx"
max_batch_size = 4
instances = 2
"""
DOOR = SOLO.format(bind="ipc://{folder}/door")
STEPS = 3000  # of `work`: a hundredth of a second or more


class Flow:
    """Jobs without a pause from a thread, each with a value of its own, until it is told to stop."""

    def __init__(self, server: Server, timeout: float = 30.0) -> None:
        self.outcomes: list[Any] = []
        self.client = server.client(timeout=timeout)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Flow:
        self._thread.start()
        eventually(lambda: len(self.outcomes) > 10)
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def end(self) -> None:
        self._stop.set()
        self._thread.join()
        self.client.close()

    def go_on(self, count: int = 30) -> None:
        """Wait until some more jobs are answered."""
        goal = len(self.outcomes) + count
        eventually(lambda: len(self.outcomes) >= goal, 60)

    def _run(self) -> None:
        value = 0
        while not self._stop.is_set():
            values = list(range(value, value + 12))
            value += 12
            rows = [job(steps=STEPS, value=value) for value in values]
            for value, outcome in zip(values, self.client.infer_many("work", rows, errors="return"), strict=True):
                self.outcomes.append((value, outcome))
            value += 1

    def check(self) -> None:
        errors = [outcome for _, outcome in self.outcomes if isinstance(outcome, InferError)]
        assert not errors, errors[:3]
        for value, outcome in self.outcomes:
            assert outcome.tensors["value"] == [value]


@pytest.fixture
def solo(start_server: Any) -> Server:
    server: Server = start_server(toml=DOOR)
    return server


def all_free(server: Server) -> bool:
    with server.client() as client:
        status = client.status()
    work, gateway = status["models"]["work"], status["gateway"]
    rings = [work["rows"], work["outputs"], *gateway["ingress"]]
    return all(ring["free"] == ring["slots"] for ring in rings) and not gateway["held"] and not status["jobs"]


def test_ps_names_every_process(solo):
    assert solo.supervisor.cmdline()[0] == "parallel-infer: supervisor"
    titles = {"dispatcher", "gateway", "decode-0", "postprocess-0", "infer-work-0", "infer-work-1"}
    assert solo.children().keys() == titles
    assert [child.cmdline() for child in solo.supervisor.children() if child not in solo.children().values()] == []
    (folder,) = solo.run_directories()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_admitted_jobs_finish_and_leaves_nothing(start_server, number):
    server = start_server(toml=DOOR)
    with server.client() as client:
        futures = [client.submit("work", job(steps=STEPS, value=value)) for value in range(24)]
        futures[0].result(30)
        eventually(lambda: client.status()["gateway"]["counts"]["bytes_in"] >= 24 * 12)
        server.process.send_signal(number)
        for value, future in enumerate(futures):
            assert future.result(30).tensors["value"] == [value]
        assert server.wait() == 0
    assert server.segments() == []
    assert server.run_directories() == []
    assert not Path(server.address.removeprefix("ipc://")).exists()


def test_a_signal_under_load_answers_everybody_and_ends_soon(start_server):
    server = start_server(toml=DOOR)
    with Flow(server, timeout=3.0) as flow:
        began = time.monotonic()
        assert server.stop() == 0
        took = time.monotonic() - began
        flow.end()
    for value, outcome in flow.outcomes:
        assert isinstance(outcome, ServerUnavailable) or outcome.tensors["value"] == [value]
    assert took < 10  # drain_timeout_ms: it did not wait for that
    assert server.segments() == []


@pytest.fixture
def swept() -> Iterator[None]:
    """Removes what a failing test leaves of dead runs, so that it fails once."""
    yield
    sweep()


@pytest.mark.usefixtures("swept")
def test_a_signal_while_starting_ends_the_start(start_server, tensor_models):
    folder = start_server(toml=DOOR).folder
    config = folder / "second.toml"
    config.write_text(SOLO.format(bind="ipc://{folder}/second").format(folder=folder, models=tensor_models))
    second = Server(folder, "--config", str(config))
    eventually(lambda: len(second.run_directories()) == 2)
    assert second.stop() in (0, 1)
    assert len(second.run_directories()) == 1


def test_killing_the_supervisor_ends_everybody_and_the_next_start_sweeps(start_server):
    server = start_server(toml=DOOR)
    family = [*server.children().values(), *server.supervisor.children(recursive=True)]
    server.process.kill()
    server.wait()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    assert server.segments(), "nothing was left to sweep: the test shows nothing"
    folder = server.folder
    with running(Server(folder, "--config", str(folder / "server.toml"))) as again:
        assert server.segments() == []
        assert server.run not in [path.name for path in again.run_directories()]
        with again.client() as client:
            assert client.infer("work", job(value=3)).tensors["value"] == [3]


@pytest.mark.parametrize("title", ["decode-0", "postprocess-0", "infer-work-0", "dispatcher", "gateway"])
def test_whoever_is_killed_while_jobs_flow_every_job_is_answered(shared_solo, title):
    server = shared_solo
    with Flow(server) as flow:
        for _ in range(2):
            victim = server.child(title)
            victim.kill()
            eventually(lambda victim=victim: server.children().get(title, victim) != victim)
            flow.go_on()
    flow.check()
    eventually(lambda: all_free(server))


@pytest.fixture(scope="module")
def shared_solo(tensor_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server for tests that kill its processes, and see to it that it is well again."""
    folder = short_folder()
    (folder / "server.toml").write_text("restart_budget = 1000\n" + DOOR.format(folder=folder, models=tensor_models))
    with running(Server(folder, "--config", str(folder / "server.toml"))) as server:
        yield server


def test_a_model_is_replaced_and_unloaded_while_its_jobs_are_in_flight(shared_solo, tensor_models):
    server = shared_solo
    path = str(tensor_models / "work.onnx")
    with server.client() as client:
        client.load("beside", path, instances=1)
        rows = [job(steps=STEPS, value=value) for value in range(36)]
        futures = [client.submit("beside", row, timeout=120) for row in rows[:12]]
        assert client.load("beside", path, instances=1, max_batch_size=2)["version"] == 2
        futures += [client.submit("beside", row, timeout=120) for row in rows[12:24]]
        client.unload("beside")
        assert [future.result(120).tensors["value"].tolist() for future in futures] == [[value] for value in range(24)]
        with pytest.raises(UnknownModel):
            client.infer("beside", rows[24])
        assert client.infer("work", job(value=3)).tensors["value"] == [3]
    eventually(lambda: all_free(server))


def test_a_dispatcher_that_was_late_leaks_no_payload_slot(shared_solo):
    server = shared_solo
    dispatcher = server.child("dispatcher")
    with server.client() as client:
        dispatcher.suspend()
        try:
            with pytest.raises(DeadlineExceeded):
                client.infer("work", job(), timeout=0.3)
        finally:
            dispatcher.resume()
        assert client.infer("work", job(value=2)).tensors["value"] == [2]
    eventually(lambda: all_free(server), 5)


@pytest.mark.parametrize("title", ["decode-0", "infer-work-0", "postprocess-0"])
def test_a_worker_that_hangs_is_replaced_and_its_jobs_are_answered_in_time(shared_solo, title):
    server = shared_solo
    victim = server.child(title)
    with server.client() as client:
        victim.suspend()
        outcomes = client.infer_many("work", [job(value=value) for value in range(8)], timeout=4.0, errors="return")
        assert all(isinstance(outcome, DeadlineExceeded) or outcome.tensors for outcome in outcomes)
        eventually(lambda: not victim.is_running())
        eventually(lambda: title in server.children())
        assert client.infer("work", job(value=2)).tensors["value"] == [2]
    eventually(lambda: all_free(server))


def test_jobs_that_come_while_the_dispatcher_is_away_are_answered_too(shared_solo):
    server = shared_solo
    with server.client() as client:
        for _ in range(3):
            victim = server.child("dispatcher")
            victim.kill()
            futures = []
            for value in range(40):  # over the whole time that the new one takes to learn what is served
                futures.append(client.submit("work", job(value=value)))
                futures[0].wait(0.01)
                eventually(lambda futures=futures: sum(not future.done() for future in futures) < 8)
            assert [future.result(30).tensors["value"].item() for future in futures] == list(range(40))
    eventually(lambda: all_free(server))


def test_after_a_gateway_died_the_address_is_the_same(start_server):
    server = start_server(toml=SOLO.format(bind="tcp://127.0.0.1:0"))
    with server.client(timeout=60.0) as client:  # a busy machine takes its time to start a process
        assert client.infer("work", job(value=1)).tensors["value"] == [1]
        server.child("gateway").kill()
        assert client.infer("work", job(value=2)).tensors["value"] == [2]


def test_what_a_dead_gateway_lent_takes_no_memory_any_more(shared_solo):
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger, dealer.rcvtimeo = 0, 60_000
        dealer.connect(shared_solo.address)
        dealer.send(msgpack.packb({"v": 1, "type": "lend", "id": 1, "slots": 1, "size": 1000}))
        name = msgpack.unpackb(dealer.recv())["result"]["segment"]
        assert name in shared_solo.segments()
        shared_solo.child("gateway").kill()
        eventually(lambda: name not in shared_solo.segments())
    with shared_solo.client(timeout=60.0) as client:
        assert client.infer("work", job(value=1)).tensors["value"] == [1]


def test_a_hundred_thousand_rings_do_not_bring_the_gateway_down(shared_solo):
    """Every lent ring takes a descriptor of the gateway, and there are only so many."""
    gateway = shared_solo.child("gateway")
    gateway.rlimit(psutil.RLIMIT_NOFILE, (200, 200))
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger, dealer.rcvtimeo = 0, 20_000
        dealer.connect(shared_solo.address)
        rings = []
        for number in range(300):
            dealer.send(msgpack.packb({"v": 1, "type": "lend", "id": number, "slots": 1, "size": 1}))
            reply = msgpack.unpackb(dealer.recv())
            if reply["type"] == "error":
                assert reply["code"] == "RESOURCE_UNAVAILABLE"
                break
            rings.append(reply["result"]["ring"])
        for ring in rings:
            dealer.send(msgpack.packb({"v": 1, "type": "give_back", "id": 1000, "ring": ring}))
            assert msgpack.unpackb(dealer.recv())["type"] == "result"
    assert gateway.is_running()


def refused(folder: Path, toml: str) -> StartRefused:
    """A server that cannot start, and what it says."""
    (folder / "bad.toml").write_text(toml)
    server = Server(folder, "--config", str(folder / "bad.toml"))
    try:
        with pytest.raises(StartRefused) as caught:
            server.wait_until_ready()
    finally:
        server.close()
    assert caught.value.code not in (0, None)
    assert server.run_directories() == []
    assert "Traceback" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("content", [b"", b"no model", None], ids=["empty", "text", "truncated"])
def test_a_model_file_that_is_broken_is_said(short_folder, tensor_models, content):
    broken = short_folder / "broken.onnx"
    broken.write_bytes((tensor_models / "work.onnx").read_bytes()[:-3000] if content is None else content)
    said = refused(
        short_folder, f'bind = ["ipc://{short_folder}/door"]\n[models.broken]\npath = "{broken}"\nprovider = "cpu"\n'
    )
    assert str(said).count("broken") == 2, "the model and its file, and both once"


def test_a_port_in_use_is_said(short_folder, tensor_models):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        said = refused(short_folder, SOLO.format(bind=address).format(models=tensor_models))
    assert address in str(said)
    assert "something else listens there" in str(said)


def test_a_socket_of_a_living_server_is_not_stolen(shared_solo, short_folder, tensor_models):
    said = refused(short_folder, SOLO.format(bind=shared_solo.address).format(models=tensor_models))
    assert shared_solo.address in str(said)
    with shared_solo.client() as client:
        assert client.infer("work", job(value=1)).tensors["value"] == [1]


def test_too_little_shared_memory_is_said(short_folder, tensor_models):
    status = os.statvfs("/dev/shm")
    much = status.f_bavail * status.f_frsize // 2**20 + 1024
    toml = SOLO.format(bind=f"ipc://{short_folder}/door").format(models=tensor_models)
    said = refused(short_folder, toml.replace("shared_memory_mb = 16", f"shared_memory_mb = {much}"))
    assert "shared memory" in str(said)
    assert "shm-size" in str(said)


@pytest.mark.usefixtures("swept")
def test_a_server_does_nothing_while_nobody_asks(shared_solo):
    processes = [shared_solo.supervisor, *shared_solo.children().values()]
    before = sum(sum(process.cpu_times()[:2]) for process in processes)
    subprocess.run([sys.executable, "-c", "import time; time.sleep(1)"], check=True)
    after = sum(sum(process.cpu_times()[:2]) for process in processes)
    assert after - before < 0.3
    assert np.isfinite(after)
