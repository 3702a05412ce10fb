"""What a server answers through its sockets: right answers, named errors, and nobody's mistakes harm anybody else."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import msgpack
import numpy as np
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parallel_infer import Client
from parallel_infer.errors import BadInput, DeadlineExceeded, Dropped, InferError, ResourceUnavailable, UnknownModel
from tests.engine.graphs import WIDE, job
from tests.engine.serving import Server, eventually

STEP = 30_000  # of `work`: some tenths of a second, or a few on a slow machine


@pytest.fixture
def client(server: Server) -> Any:
    with server.client() as client:
        yield client


@pytest.fixture
def dealer() -> Iterator[Callable[..., zmq.Socket[bytes]]]:
    """Makes clients in another language: `dealer(address, identity=b"", kind=zmq.DEALER)`."""
    context = zmq.Context()
    sockets = []

    def make(address: str, identity: bytes = b"", kind: int = zmq.DEALER) -> zmq.Socket[bytes]:
        socket = context.socket(kind)
        socket.linger = 0
        socket.rcvtimeo = 20_000
        if identity:
            socket.identity = identity
        socket.connect(address)
        sockets.append(socket)
        return socket

    yield make
    for socket in sockets:
        socket.close()
    context.term()


def ask(socket: zmq.Socket[bytes], header: Any, *payload: bytes) -> dict[str, Any]:
    """Send a request and read the header of the reply."""
    socket.send_multipart([header if isinstance(header, bytes) else msgpack.packb(header), *payload])
    reply: dict[str, Any] = msgpack.unpackb(socket.recv_multipart()[0])
    return reply


def wide(value: float) -> np.ndarray:
    return np.full(WIDE, value, np.float32)


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["astronaut.png", "coffee.png", "chelsea.png"])
def test_the_shipped_detector_finds_what_it_should(client, pictures, expected, name):
    answer = client.infer("detector", pictures / name)
    wanted = expected[name]
    assert [answer.width, answer.height] == wanted["size"]
    found = list(zip(answer.names, answer.scores.tolist(), answer.boxes.tolist(), strict=True))
    for thing in wanted["detect"]:
        best = max((score for label, score, _ in found if label == thing["name"]), default=0.0)
        assert best == pytest.approx(thing["score"], abs=0.03), thing["name"]


def test_a_picture_and_its_frame_give_the_same_answer(client, pictures):
    frame = cv2.imread(str(pictures / "coffee.png"))
    of_file, of_frame = client.infer("detector", pictures / "coffee.png"), client.infer("detector", frame)
    assert of_file.names == of_frame.names
    np.testing.assert_allclose(of_file.boxes, of_frame.boxes, atol=0.5)


def test_answers_as_objects_are_the_documented_map(server, pictures, dealer):
    socket = dealer(server.address)
    picture = (pictures / "astronaut.png").read_bytes()
    reply = ask(socket, {"v": 1, "type": "infer", "id": 7, "model": "detector", "format": "objects"}, picture)
    assert (reply["type"], reply["id"]) == ("answer", 7)
    assert reply["answer"]["image"] == {"width": 512, "height": 512}
    person = reply["answer"]["predictions"][0]
    assert person["class"] == "person"
    assert {"x", "y", "width", "height", "confidence", "class_id", "detection_id"} <= person.keys()
    json.dumps(reply["answer"])


def test_two_inputs_go_in_by_name_and_two_outputs_come_out(client):
    answer = client.infer("pair", {"b": wide(3), "a": wide(5)})
    assert answer.task == "tensor"
    np.testing.assert_array_equal(answer.tensors["sum"], wide(8))
    np.testing.assert_array_equal(answer.tensors["difference"], wide(2))
    assert {"total", "queue", "decode", "batch_wait", "infer", "post_wait", "postprocess"} <= answer.timing.keys()
    assert all(seconds >= 0 for seconds in answer.timing.values())


def test_everybody_gets_the_answer_to_their_own_question(client):
    inputs = [{"a": wide(number), "b": wide(-2 * number)} for number in range(300)]
    answers = client.infer_many("pair", inputs)
    for number, answer in enumerate(answers):
        np.testing.assert_array_equal(answer.tensors["sum"], wide(-number))
        np.testing.assert_array_equal(answer.tensors["difference"], wide(3 * number))
    assert max(answer.batch_size for answer in answers) > 1


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_a_model_of_fixed_batch_answers_any_number(client, count):
    rows = [np.array([number, 2, 3], np.float32) for number in range(count)]
    answers = client.infer_many("fixed", rows)
    for row, answer in zip(rows, answers, strict=True):
        np.testing.assert_array_equal(answer.tensors["y"], 2 * row)


def test_a_batch_dimension_of_one_may_be_sent_or_left_out(client):
    row = np.array([[1, 2, 3]], np.float32)
    np.testing.assert_array_equal(client.infer("fixed", row).tensors["y"], [2, 4, 6])


def test_every_address_leads_to_the_same_server(server, pictures):
    assert [address.split(":")[0] for address in server.addresses] == ["ipc", "tcp"]
    for address in server.addresses:
        with server.client(address) as client:
            assert client.infer("detector", pictures / "astronaut.png").names[0] == "person"


def test_lent_slots_carry_frames(server, pictures):
    frame = cv2.imread(str(pictures / "astronaut.png"))
    with server.client() as client:
        plain = client.infer("detector", frame)
        with client.frame(*frame.shape[:2]) as lent:
            for _ in range(3):
                lent[:] = frame
                answer = client.infer("detector", lent)
                assert answer.names == plain.names
                np.testing.assert_array_equal(answer.boxes, plain.boxes)
    eventually(lambda: not [name for name in server.segments() if "lent" in name])


def test_what_is_served_is_told(client, server):
    models = {model["name"]: model for model in client.models()}
    assert sorted(models) == sorted(server.models) == ["detector", "fixed", "narrow", "pair", "work"]
    assert models["fixed"]["max_batch_size"] == 4
    assert models["pair"]["inputs"] == [["a", "float32", [WIDE]], ["b", "float32", [WIDE]]]
    assert "person" in models["detector"]["classes"]


def test_status_counts_and_leaks_no_internals(client, server):
    before = client.status()
    client.infer("pair", {"a": wide(1), "b": wide(2)})
    after = client.status()
    assert after["models"]["pair"]["answered"] >= before["models"]["pair"]["answered"]
    text = repr(after)
    assert not [secret for secret in (server.run, "/tmp", "/dev/shm") if secret in text]
    assert server.process.pid not in [int(number) for number in re.findall(r"(?<![\d.])\d+(?![\d.])", text)]


# --- errors -----------------------------------------------------------------------------------------------------------


def test_an_unknown_model_is_named_and_so_are_the_known(client):
    with pytest.raises(UnknownModel, match=r"'nothing'.*detector, fixed, narrow, pair, work"):
        client.infer("nothing", b"x")


@pytest.mark.parametrize("payload", [b"\0", b"no picture at all", b"\xff\xd8\xff\xe0 cut short", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_bad_input(client, payload):
    with pytest.raises(BadInput):
        client.infer("detector", payload)


def test_an_empty_payload_is_bad_input(client):
    with pytest.raises(BadInput, match="empty"):
        client.infer("detector", b"")


def test_a_payload_that_is_too_large_names_limit_and_option(client):
    with pytest.raises(BadInput, match=rf"{8 << 20} \(option max_payload_mb\)"):
        client.infer("detector", bytes((8 << 20) + 1))


@pytest.mark.parametrize(
    ("tensor", "found"),
    [
        (np.zeros(4, np.float32), r"float32 \[4\] came"),
        (np.zeros(3, np.float64), r"float64 \[3\] came"),
        (np.zeros((2, 3), np.float32), r"float32 \[2, 3\] came"),
    ],
)
def test_a_wrong_tensor_is_told_what_was_expected(client, tensor, found):
    with pytest.raises(BadInput, match=rf"'x' is float32 \[3\]; {found}"):
        client.infer("fixed", tensor)


def test_a_missing_input_is_named(client):
    with pytest.raises(BadInput, match=r"'a' float32 \[256\], 'b' float32 \[256\].*'a'"):
        client.infer("pair", {"a": wide(1)})


def test_a_picture_for_a_tensor_model_is_refused(client, pictures):
    with pytest.raises(BadInput, match="takes tensors, not pictures"):
        client.infer("pair", pictures / "coffee.png")


def test_an_unknown_option_is_refused_and_names_it(client, pictures):
    with pytest.raises(BadInput, match="confidense"):
        client.infer("detector", pictures / "coffee.png", confidense=0.5)


def test_an_option_out_of_range_is_refused(client, pictures):
    with pytest.raises(BadInput, match="confidence"):
        client.infer("detector", pictures / "coffee.png", confidence=7)


def test_a_deadline_is_kept_and_named(client):
    with pytest.raises(DeadlineExceeded):
        client.infer("work", job(steps=STEP), timeout=0.05)


def test_a_full_queue_is_said_at_once_and_names_the_option(server, dealer):
    sockets = [dealer(server.address) for _ in range(5)]
    header = {"v": 1, "type": "infer", "model": "narrow", "kind": "tensors", "tensors": [["", "float32", [3]]]}
    decoders = [server.child(f"decode-{number}") for number in range(2)]
    for decoder in decoders:
        decoder.suspend()
    try:
        for number in range(150):
            message = [msgpack.packb({**header, "id": number}), job().tobytes()]
            sockets[number % 5].send_multipart(message)
        assert sockets[4].poll(900), "as long as nobody decodes, only a refusal can come back"
    finally:
        for decoder in decoders:
            decoder.resume()
    replies = [msgpack.unpackb(sockets[number % 5].recv_multipart()[0]) for number in range(150)]
    refused = [reply for reply in replies if reply["type"] == "error"]
    assert 0 < len(refused) < 150
    assert {reply["code"] for reply in refused} == {"RESOURCE_UNAVAILABLE"}
    assert any("option queue_size" in reply["message"] for reply in refused)


def test_a_cancelled_job_is_dropped(client):
    blocker = client.submit("work", job(steps=STEP))
    futures = [client.submit("work", job(value=1)) for _ in range(3)]
    assert futures[-1].cancel() or futures[-1].done()
    assert blocker.result(30) is not None
    for future in futures[:-1]:
        assert future.result(30).tensors["value"] == [1]


def test_latest_drops_only_what_waits(client):
    results = list(client.stream("work", [job(steps=STEP / 20, value=n) for n in range(30)], drop="latest"))
    assert [number for number, _ in results] == list(range(30))
    for number, outcome in results:
        assert isinstance(outcome, Dropped) or outcome.tensors["value"] == [number]
    assert not isinstance(results[-1][1], InferError)


def test_a_row_that_fails_at_run_time_fails_alone_and_tells_no_paths(client, tensor_models):
    rows = [job(value=number, index=99 if number % 7 == 3 else 2) for number in range(60)]
    outcomes = client.infer_many("work", rows, errors="return")
    for number, outcome in enumerate(outcomes):
        if number % 7 == 3:
            assert isinstance(outcome, InferError)
            assert not isinstance(outcome, ResourceUnavailable)
            assert str(tensor_models) not in str(outcome)
            assert "/" not in str(outcome).replace("and/or", "")
        else:
            assert outcome.tensors["value"] == [number]
            assert outcome.tensors["found"] == [20]


def test_the_mistakes_of_one_client_change_nothing_for_another(server, pictures):
    def blunder() -> int:
        wrongs = [b"junk", b"\xff\xd8\xff" + bytes(500), (pictures / "coffee.png").read_bytes()[:3000]]
        with server.client() as client:
            outcomes = client.infer_many("detector", wrongs * 20, errors="return")
        return sum(isinstance(outcome, InferError) for outcome in outcomes)

    with ThreadPoolExecutor(1) as pool, server.client() as client:
        alone = client.infer("detector", pictures / "astronaut.png")
        blunders = pool.submit(blunder)
        together = client.infer_many("detector", [pictures / "astronaut.png"] * 12)
        assert blunders.result(60) == 60
    for answer in together:
        assert answer.names == alone.names
        np.testing.assert_allclose(answer.boxes, alone.boxes, atol=0.01)


# --- the wire ---------------------------------------------------------------------------------------------------------


def test_a_req_socket_with_its_envelope_is_served(server, dealer):
    socket = dealer(server.address, kind=zmq.REQ)
    for number in (1, 2):
        header = {"v": 1, "type": "infer", "id": number, "model": "fixed", "kind": "tensors"}
        header["tensors"] = [["x", "float32", [3]]]
        socket.send_multipart([msgpack.packb(header), struct.pack("<3f", 1, 2, 3)])
        reply, payload = socket.recv_multipart()
        assert msgpack.unpackb(reply)["id"] == number
        assert struct.unpack("<3f", payload) == (2, 4, 6)


VALID = {
    "v": 1,
    "type": "infer",
    "id": 5,
    "model": "fixed",
    "kind": "tensors",
    "tensors": [["x", "float32", [3]]],
    "timeout": 5.0,
    "priority": 1,
    "options": {},
    "format": "arrays",
    "source": "",
    "drop": "none",
}
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=20),
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner))


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """A valid header with some of it changed, or bytes of any kind."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=60))
    header: dict[Any, Any] = dict(VALID, id=draw(st.integers(0, 2**62)))
    for _ in range(draw(st.integers(0, 3))):
        key = draw(st.sampled_from([*VALID, "slot", "extra"]))
        if draw(st.booleans()):
            header[key] = draw(values)
        else:
            header.pop(key, None)
    if draw(st.integers(0, 4)) == 0:
        header["slot"] = [draw(st.integers(0, 3)), draw(st.integers(0, 70_000)), draw(st.integers(0, 2**41))]
    encoded = bytearray(msgpack.packb(header))
    for _ in range(draw(st.sampled_from([0, 0, 1, 4]))):
        encoded[draw(st.integers(0, len(encoded) - 1))] = draw(st.integers(0, 255))
    return bytes(encoded)


def test_no_header_whatsoever_harms_the_server(server, dealer):
    socket = dealer(server.address)
    errors = set()

    @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
    @given(header=headers(), payload=st.sampled_from([bytes(12), b"", bytes(13)]))
    def send(header: bytes, payload: bytes) -> None:
        frames = [header, payload] if payload else [header]
        if any(word in header for word in (b"stop", b"unload", b"cancel")):
            return  # a mutation could spell a request that is none of this test's business
        if frames == [b""]:
            return  # says that a client is there, as ZMQ_PROBE_ROUTER does, and has no reply
        socket.send_multipart(frames)
        first, *further = socket.recv_multipart()
        reply = msgpack.unpackb(first or further[0])  # an empty header is taken for an envelope, and comes back
        assert reply["type"] in ("answer", "error", "result")
        if reply["type"] == "error":
            errors.add(reply["code"])
            assert "/" not in reply["message"] or "/" in repr(header)
            assert server.run not in reply["message"]

    send()
    assert errors <= {"BAD_INPUT", "UNKNOWN_MODEL", "DEADLINE_EXCEEDED"}
    with server.client() as client:
        np.testing.assert_array_equal(client.infer("fixed", np.ones(3, np.float32)).tensors["y"], [2, 2, 2])


@pytest.mark.parametrize("frames", [[b"", b""], [b"", b"", b""], [b"a", b"b", b"c", b"d"], [b"\x80"]])
def test_messages_of_odd_frames_are_answered_with_an_error(server, frames, dealer):
    socket = dealer(server.address)
    socket.send_multipart(frames)
    reply = msgpack.unpackb(socket.recv_multipart()[-1])
    assert (reply["type"], reply["id"], reply["code"]) == ("error", 0, "BAD_INPUT")


def test_an_error_finds_its_request_though_the_header_is_wrong_otherwise(server, dealer):
    socket = dealer(server.address)
    reply = ask(socket, {"v": 1, "type": "infer", "id": 77, "model": "fixed", "colour": 1})
    assert (reply["id"], reply["code"]) == (77, "BAD_INPUT")
    assert "colour" in reply["message"]


@pytest.mark.parametrize("timeout", [float("nan"), float("inf"), -1.0, 0.0, 1e300])
def test_a_timeout_that_is_none_is_refused(server, timeout, dealer):
    socket = dealer(server.address)
    reply = ask(socket, {**VALID, "timeout": timeout}, bytes(12))
    assert (reply["type"], reply["code"]) == ("error", "BAD_INPUT")


def overflowing() -> tuple[list[int], int]:
    """A shape whose product is a small number of bytes modulo 2**64."""
    for a in range(2**30, 2**31, 1_000_003):
        for c in range(3, 200, 2):
            rest = -(2**64) % (a * c)
            b = (2**64 + rest) // (a * c)
            if rest and rest < 1 << 20 and b < 2**31:
                return [a, b, c], rest
    raise AssertionError("no such shape")


def test_a_shape_that_overflows_is_bad_input(server, dealer):
    shape, size = overflowing()
    assert np.prod(shape, dtype=np.int64) == size
    socket = dealer(server.address)
    header = {"v": 1, "type": "infer", "id": 1, "model": "detector", "kind": "frame"}
    reply = ask(socket, {**header, "tensors": [["", "uint8", shape]]}, bytes(size))
    assert reply["code"] == "BAD_INPUT"


def test_clients_of_one_name_at_two_doors_are_two_clients(server, dealer):
    sockets = [dealer(address, b"twin") for address in server.addresses]
    header = {"v": 1, "type": "infer", "id": 1, "model": "work", "kind": "tensors", "tensors": [["", "float32", [3]]]}
    for value, socket in enumerate(sockets):
        socket.send_multipart([msgpack.packb(header), job(steps=STEP / 4, value=value).tobytes()])
    for value, socket in enumerate(sockets):
        socket.rcvtimeo = 2000
        reply, payload = socket.recv_multipart()
        assert msgpack.unpackb(reply)["type"] == "answer"
        assert struct.unpack("<2f", payload)[0] == value


def test_slots_are_lent_to_their_client_alone_and_within_bounds(server, dealer):
    mine, other = dealer(server.address), dealer(server.address)
    lent = ask(mine, {"v": 1, "type": "lend", "id": 1, "slots": 2, "size": 100})["result"]
    infer = {"v": 1, "type": "infer", "model": "fixed", "kind": "tensors", "tensors": [["", "float32", [3]]]}
    try:
        for socket, slot in [(other, [lent["ring"], 0, 12]), (mine, [lent["ring"], 2, 12])]:
            assert ask(socket, {**infer, "id": 2, "slot": slot})["code"] == "BAD_INPUT"
        assert ask(mine, {**infer, "id": 3, "slot": [lent["ring"], 1, lent["size"] + 1]})["code"] == "BAD_INPUT"
        assert ask(mine, {**infer, "id": 4, "slot": [lent["ring"], 1, 0]})["code"] == "BAD_INPUT"
        assert ask(mine, {**infer, "id": 5, "slot": [lent["ring"], 1, 12]})["type"] == "answer"
        assert ask(other, {"v": 1, "type": "give_back", "id": 6, "ring": lent["ring"]})["code"] == "BAD_INPUT"
    finally:
        assert ask(mine, {"v": 1, "type": "give_back", "id": 7, "ring": lent["ring"]})["type"] == "result"
    assert ask(mine, {**infer, "id": 8, "slot": [lent["ring"], 1, 12]})["code"] == "BAD_INPUT"


def test_lending_stops_at_its_budget(server, dealer):
    socket = dealer(server.address)
    reply = ask(socket, {"v": 1, "type": "lend", "id": 1, "slots": 1024, "size": 1 << 20})
    assert reply["code"] == "RESOURCE_UNAVAILABLE"
    assert "lent_memory_mb" in reply["message"]


def test_nothing_is_lent_over_tcp(server, dealer):
    socket = dealer(server.addresses[1])
    reply = ask(socket, {"v": 1, "type": "lend", "id": 1, "slots": 1, "size": 1})
    assert reply["code"] == "BAD_INPUT"
    assert "ipc" in reply["message"]


def test_after_all_this_everything_is_free(server):
    """Last in the file: whatever the tests above did, no slot, row or job is left."""
    with server.client() as client:

        def idle() -> bool:
            status = client.status()
            models = status["models"].values()
            free = all(ring["free"] == ring["slots"] for model in models for ring in (model["rows"], model["outputs"]))
            gateway = status["gateway"]
            free &= all(ring["free"] == ring["slots"] for ring in gateway["ingress"])
            return free and not status["jobs"] and not gateway["pending"] and not gateway["held"]

        eventually(idle)
        assert isinstance(client, Client)
