"""The blocking client: what goes out, what comes back, and that it never hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
import pytest

from parallel_infer import Client, protocol
from parallel_infer.errors import (
    BadInput,
    DeadlineExceeded,
    InferError,
    ResourceUnavailable,
    ServerUnavailable,
    Unanswered,
    UnknownModel,
)
from tests.client.client_calls import in_thread, payload_of


def test_answers_come_back_with_their_facts(server):
    with Client(server.address) as client:
        answer = client.infer("echo", b"picture", confidence=0.5)
    assert payload_of(answer) == b"picture"
    assert (answer.model, answer.task, answer.batch_size, answer.timing) == ("echo", "tensor", 2, {"total": 0.001})


def test_request_on_the_wire(server):
    with Client(server.address) as client:
        client.infer("echo", b"x", timeout=3, priority=7, confidence=np.float32(0.5), class_filter=["dog"], top=None)
    request = server.next().request
    assert (request.model, request.priority, request.format) == ("echo", 7, "arrays")
    assert 2 < request.timeout <= 3  # less what it took to connect
    assert msgspec.msgpack.decode(request.options) == {"confidence": 0.5, "class_filter": ["dog"], "top": None}


def test_path_is_read(server, tmp_path):
    (tmp_path / "p.jpg").write_bytes(b"jpeg")
    with Client(server.address) as client:
        assert payload_of(client.infer("echo", tmp_path / "p.jpg")) == b"jpeg"
        assert payload_of(client.infer("echo", str(tmp_path / "p.jpg"))) == b"jpeg"
        assert server.next().request.kind == "picture"
        with pytest.raises(BadInput, match="cannot be read"):
            client.infer("echo", tmp_path / "missing.jpg")


@pytest.mark.parametrize("order", ["contiguous", "sliced"])
def test_frame(server, frame, order):
    picture = frame if order == "contiguous" else np.repeat(frame, 2, 1)[:, ::2]
    with Client(server.address) as client:
        assert payload_of(client.infer("echo", picture)) == frame.tobytes()
    request = server.next().request
    assert (request.kind, request.tensors) == ("frame", (protocol.Tensor("", "uint8", (48, 64, 3)),))


def test_gray_becomes_a_frame(server, frame):
    gray = frame[:, :, 0]
    with Client(server.address) as client:
        answers = client.infer_many("echo", [gray, gray[:, :, None]])
    assert {payload_of(answer) for answer in answers} == {np.stack([gray] * 3, 2).tobytes()}
    assert server.next().request.tensors[0].shape == (48, 64, 3)


def test_large_frame_survives(server):
    large = np.random.default_rng(1).integers(0, 256, (600, 800, 3), np.uint8)
    with Client(server.address) as client:
        assert payload_of(client.infer("echo", large)) == large.tobytes()


def test_tensors(server):
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1, 2], ">i8")
    with Client(server.address) as client:
        assert payload_of(client.infer("echo", a)) == a.tobytes()
        assert payload_of(client.infer("echo", {"a": a.T, "b": b})) == a.T.tobytes() + b.astype("<i8").tobytes()
    assert server.next().request.tensors == (protocol.Tensor("", "float32", (2, 3)),)
    request = server.next().request
    assert request.kind == "tensors"
    assert request.tensors == (protocol.Tensor("a", "float32", (3, 2)), protocol.Tensor("b", "int64", (2,)))


@pytest.mark.parametrize("picture", [None, 3, {}, np.array(["text"]), np.array([object()])])
def test_no_picture(server, picture):
    with Client(server.address) as client, pytest.raises(BadInput):
        client.infer("echo", picture)
    assert server.count == 0


def test_option_that_cannot_be_sent(server):
    with Client(server.address) as client, pytest.raises(BadInput, match="options"):
        client.infer("echo", b"x", confidence=object())


@pytest.mark.parametrize("timeout", [0, -1, 1e9, float("nan")])
def test_timeout_out_of_range(server, timeout):
    with Client(server.address) as client, pytest.raises(BadInput, match="timeout"):
        client.infer("echo", b"x", timeout=timeout)


@pytest.mark.parametrize(
    ("code", "kind"),
    [("UNKNOWN_MODEL", UnknownModel), ("DEADLINE_EXCEEDED", DeadlineExceeded), ("FROM_THE_FUTURE", InferError)],
)
def test_errors_keep_their_names(server, code, kind):
    with Client(server.address) as client, pytest.raises(kind, match="as asked") as caught:
        client.infer(f"fail:{code}", b"x")
    assert type(caught.value) is kind


def test_full_server_is_an_error_for_one_picture(server):
    with Client(server.address) as client, pytest.raises(ResourceUnavailable):
        client.infer("fail:RESOURCE_UNAVAILABLE", b"x")


def test_nobody_listens(nobody):
    with Client(nobody) as client, pytest.raises(ServerUnavailable, match=f"Nobody listens at {nobody}"):
        client.infer("echo", b"x", timeout=0.1)


def test_nobody_answers(server):
    with Client(server.address) as client:
        client.infer("echo", b"x")  # there is a connection: the server is late, and not away
        with pytest.raises(Unanswered, match="not answered within 0.05 s") as caught:
            client.infer("silent", b"x", timeout=0.05)
    assert caught.value.code == DeadlineExceeded.code


def test_late_answer_is_dropped(server):
    with Client(server.address) as client:
        client.infer("echo", b"x")
        with pytest.raises(DeadlineExceeded):
            client.infer("held", b"first", timeout=0.05)
        server.release()
        assert payload_of(client.infer("echo", b"second")) == b"second"


def test_second_answer_is_dropped(server):
    with Client(server.address) as client:
        for number in range(5):
            assert payload_of(client.infer("twice", b"%d" % number)) == b"%d" % number


def test_garbage_from_the_server_is_survived(server):
    with Client(server.address) as client:
        join = in_thread(lambda: client.infer("held", b"x"))
        caller = server.next().client
        server.send_frames(caller, b"\xc1garbage", b"1", b"2")
        server.release()
        assert payload_of(join()) == b"x"


def test_reply_that_does_not_fit_is_an_error(server):
    with Client(server.address) as client:
        join = in_thread(lambda: client.infer("held", b"x"))
        received = server.next()
        body = protocol.AnswerBody(task="tensor", model="m", arrays=(protocol.Tensor("a", "float32", (100,)),))
        reply = protocol.Answer(id=received.request.id, answer=msgspec.Raw(msgspec.msgpack.encode(body)))
        server.call(lambda: server.reply(received.client, reply, b"short"))
        with pytest.raises(InferError, match="cannot be read"):
            join()


@pytest.mark.parametrize(
    ("manage", "kind"),
    [
        (lambda client: client.load("m", "m.onnx"), protocol.Load),
        (lambda client: client.load_chain("n", "m > m"), protocol.LoadChain),
        (lambda client: client.unload("m"), protocol.Unload),
        (lambda client: client.stop(), protocol.Stop),
    ],
    ids=["load", "load_chain", "unload", "stop"],
)
def test_what_was_submitted_before_reaches_the_server_before_a_change(server, manage, kind):
    busy, go = threading.Event(), threading.Event()

    def occupy(future: object) -> None:
        busy.set()
        go.wait(10)

    with Client(server.address) as client:
        client.submit("echo", b"first", callback=occupy)
        assert busy.wait(10)
        server.next()
        client.submit("echo", b"second")  # the thread that is to send it is busy
        join = in_thread(lambda: manage(client))
        try:
            early = server.rest(0.3)
        finally:
            go.set()
        join()
        server.call(lambda: None)  # it notes a request after its reply has left
        later = server.rest(0.0)
    assert not [received for received in early if isinstance(received.request, (protocol.Infer, kind))]
    kinds = [type(received.request) for received in later]
    assert [found for found in kinds if found in (protocol.Infer, kind)] == [protocol.Infer, kind]


def test_unattributed_complaint_is_told(server):
    with Client(server.address) as client:
        join = in_thread(lambda: client.infer("silent", b"x", timeout=3))
        caller = server.next().client
        server.call(lambda: server.reply(caller, protocol.Error(id=0, code="BAD_INPUT", message="version 2 only")))
        with pytest.raises(ServerUnavailable, match="version 2 only"):
            join()


def test_restart_is_not_noticed(server):
    with Client(server.address) as client:
        join = in_thread(lambda: client.infer("held", b"kept", timeout=10))
        first = server.next().request
        server.restart()
        second = server.next().request
        server.release()
        assert payload_of(join()) == b"kept"
    assert second.id == first.id
    assert second.timeout < first.timeout <= 10


def test_server_that_starts_late(tmp_path, server):
    server.stop()
    try:
        with Client(server.address) as client:
            join = in_thread(lambda: client.infer("echo", b"early", timeout=10))
            server.start()
            assert payload_of(join()) == b"early"
            assert server.count == 1
    except BaseException:
        if not server.running:
            server.start()
        raise


def test_expired_requests_are_never_sent(server):
    server.stop()
    with Client(server.address) as client:
        try:
            with pytest.raises(ServerUnavailable):
                client.infer("echo", b"expired", timeout=0.05)
        finally:
            server.start()
        assert payload_of(client.infer("echo", b"fresh", timeout=10)) == b"fresh"
    assert server.count == 1


def test_many_threads(server):
    with Client(server.address) as client, ThreadPoolExecutor(8) as pool:
        payloads = [b"%d" % number for number in range(200)]
        answers = list(pool.map(lambda payload: client.infer("echo", payload), payloads))
        assert [payload_of(answer) for answer in answers] == payloads
    assert len({received.client for received in server.received.queue}) <= 9  # connections


def test_management(server):
    with Client(server.address) as client:
        assert client.models()["type"] == "models"
        assert client.status()["type"] == "status"
        assert client.ready() is True
        loaded = client.load("m", "/models/m.onnx", max_batch_size=4)
        assert (loaded["name"], loaded["path"], loaded["options"]) == ("m", "/models/m.onnx", {"max_batch_size": 4})
        assert client.unload("m")["name"] == "m"


def test_closed_client(server):
    client = Client(server.address)
    client.close()
    client.close()
    for call in (lambda: client.infer("echo", b"x"), lambda: client.submit("echo", b"x"), client.models):
        with pytest.raises(ServerUnavailable, match="closed"):
            call()


@pytest.mark.parametrize(
    "address", ["localhost:5555", "tcp://", "ipc://" + "x" * 200, "", "tcp://h:65536", "tcp://h:0"]
)
def test_address_that_is_none(address):
    with pytest.raises(ValueError, match="no address of a server"):
        Client(address)


INTERRUPTED = """
import sys
from parallel_infer import Client
with Client(sys.argv[1]) as client:
    while True:
        try:
            client.infer("held", b"x", timeout=60)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
"""


def test_interrupt_cancels_the_job(server):
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, server.address], stdout=subprocess.PIPE, text=True
    ) as program:
        try:
            assert program.stdout is not None
            for _ in range(5):  # it comes as soon as the request has arrived: the client may not be waiting yet
                job = server.next().request.id
                program.send_signal(signal.SIGINT)
                assert program.stdout.readline() == "interrupted\n"
                assert server.next(protocol.Cancel).request.job == job
        finally:
            program.kill()


def test_a_forked_child_has_no_part_in_it(server):
    """The parent's own sockets keep working after a child came and went."""
    with Client(server.address) as client:
        client.infer("echo", b"x")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads is what this is about
            child = os.fork()
        if child == 0:
            os._exit(0 if client.infer("echo", b"from the child", timeout=5) else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert payload_of(client.infer("echo", b"y")) == b"y"


NEVER_CLOSED = """
import os, sys
from parallel_infer import Client
for _ in range(100):
    Client(sys.argv[1]).infer("echo", b"x")
client = Client(sys.argv[1], timeout=300)
pending = [client.submit("silent", b"x") for _ in range(50)]
print(len(os.listdir("/proc/self/fd")))
"""


def test_clients_that_nobody_closes_leak_nothing_and_hold_up_no_exit(server):
    """The program ends at once, though 50 of its jobs have 300 seconds left."""
    run = subprocess.run(
        [sys.executable, "-c", NEVER_CLOSED, server.address], capture_output=True, text=True, timeout=120, check=True
    )
    assert run.stderr == ""
    assert int(run.stdout) < 100, "descriptors of 101 clients, one of which lives"


def test_a_call_that_waits_holds_up_no_other(server):
    with Client(server.address) as client:
        join = in_thread(lambda: client.infer("held", b"slow", timeout=10))
        server.next()
        assert payload_of(client.infer("echo", b"quick")) == b"quick"
        server.release()
        assert payload_of(join()) == b"slow"
