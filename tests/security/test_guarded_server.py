"""A whole server with keys: who may do what, what its replies give away, and that nobody starves."""

from __future__ import annotations

import itertools
import os
import random
import re
import threading

import msgpack
import numpy as np
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper
from onnx.helper import make_node as node
from onnx.helper import make_tensor_value_info as tensor

from parallel_infer import Client
from parallel_infer.cli import main
from parallel_infer.errors import ModelRejected, Unauthorized
from parallel_infer.tools.local_server import local_server
from tests.inference.session_models import identity, model
from tests.security.guarded import PATIENCE, dealer, make_keys, throw_garbage

JOB = {"x": np.arange(8, dtype=np.float32)}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server with keys on tcp and a socket file; its folder, keys and process."""
    folder = tmp_path_factory.mktemp("g")
    keys = make_keys(folder / "keys", "camera", managers=("boss",))
    (folder / "m.onnx").write_bytes(identity())
    options = ["--model", f"m={folder}/m.onnx", "--queue-size", "8", "--decode-workers", "1"]
    options += ["--bind", "tcp://127.0.0.1:0", "--bind", f"ipc://{folder}/s", "--keys", str(folder / "keys")]
    with (folder / "log").open("w") as log, local_server(*options, stderr=log) as server:
        yield folder, keys, server


@pytest.fixture
def boss(guarded):
    _, keys, server = guarded
    with Client(server.address, key=keys["boss"], timeout=30) as client:
        yield client


@pytest.fixture
def camera(guarded):
    _, keys, server = guarded
    with Client(server.address, key=keys["camera"], timeout=30) as client:
        yield client


def is_served(client):
    return np.array_equal(client.infer("m", JOB).tensors["y"], JOB["x"])


def test_a_listed_client_is_served_and_may_not_manage(camera, guarded):
    folder, _, _ = guarded
    assert is_served(camera)
    for call in (lambda: camera.load("x", str(folder / "m.onnx")), lambda: camera.unload("m")):
        with pytest.raises(Unauthorized, match="may not manage the server"):
            call()
    assert is_served(camera)


def test_a_key_comes_through_a_pipe(guarded, tmp_path, monkeypatch):
    """As in --key <(pass show camera). The command connects twice: the first word is a file, and may be a model."""
    _, keys, server = guarded
    key = keys["camera"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").write_bytes(b"no picture")
    reading, writing = os.pipe()
    os.write(writing, f"public = {key.public}\nsecret={key.secret}\nserver = {key.server}\n".encode())
    os.close(writing)
    result = CliRunner().invoke(main, ["infer", "--server", server.address, "--key", f"/dev/fd/{reading}", "m", "m"])
    os.close(reading)
    assert "m: " in result.stderr  # what the model says of that file
    assert "key" not in result.stderr


def test_a_manager_loads_and_unloads(boss, camera, guarded):
    folder, _, _ = guarded
    boss.load("second", str(folder / "m.onnx"))
    assert {told["name"] for told in camera.models()} == {"m", "second"}
    boss.unload("second")
    assert {told["name"] for told in camera.models()} == {"m"}


def test_the_right_to_manage_can_be_taken_away_at_once(boss, guarded):
    folder, _, _ = guarded
    listed = folder / "keys/clients/boss.pub"
    before = listed.read_text()
    try:
        listed.write_text(before.replace("yes", "no"))
        with pytest.raises(Unauthorized):
            boss.unload("m")
    finally:
        listed.write_text(before)


def test_a_socket_file_needs_no_key_and_may_manage(guarded):
    _, _, server = guarded
    assert server.address.startswith("tcp://")
    with Client(f"ipc://{guarded[0]}/s", timeout=30) as local:
        assert is_served(local)
        local.load("third", str(guarded[0] / "m.onnx"))
        local.unload("third")


def test_a_stranger_and_garbage_harm_nobody(camera, guarded):
    _, _, server = guarded
    throw_garbage(server.address, 200)
    with Client(server.address) as stranger, pytest.raises(Unauthorized):
        stranger.infer("m", JOB)
    assert is_served(camera)


# --- models as untrusted files ---------------------------------------------------------------------------------------


def bomb():
    """A few bytes that ask for 40 GB when they run."""
    size = helper.make_tensor("size", TensorProto.INT64, [1], [10_000_000_000])
    nodes = [
        node("Constant", [], ["size"], value=size),
        node("ConstantOfShape", ["size"], ["zeros"]),
        node("ReduceMax", ["zeros"], ["most"], keepdims=1),
        node("Add", ["x", "most"], ["y"]),
    ]
    shape = ["batch", 1]
    return model(nodes, [tensor("x", TensorProto.FLOAT, shape)], [tensor("y", TensorProto.FLOAT, shape)])


def outside(folder, link):
    """A model whose weights are a link to a file outside of its folder."""
    (folder / "secret").write_bytes(np.ones(8, np.float32).tobytes())
    inside = folder / "inside"
    inside.mkdir()
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[8], data_location=TensorProto.EXTERNAL)
    entry = weights.external_data.add()
    entry.key, entry.value = "location", "../secret" if link is None else "w.bin"
    if link is not None:
        link(folder / "secret", inside / "w.bin")
    shape = ["batch", 8]
    graph = helper.make_graph(
        [node("Add", ["x", "w"], ["y"])],
        "graph",
        [tensor("x", TensorProto.FLOAT, shape)],
        [tensor("y", TensorProto.FLOAT, shape)],
        [weights],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (inside / "bad.onnx").write_bytes(made.SerializeToString())
    return inside / "bad.onnx"


@pytest.mark.parametrize("link", [os.link, os.symlink, None], ids=["hard link", "symbolic link", "path"])
def test_weights_outside_of_the_folder_are_refused(link, boss, tmp_path):
    file = outside(tmp_path, link)
    with pytest.raises(ModelRejected, match="'bad'"):
        boss.load("bad", str(file))
    assert is_served(boss)


def test_a_model_that_asks_for_too_much_memory_is_refused(boss, tmp_path):
    (tmp_path / "bomb.onnx").write_bytes(bomb())
    with pytest.raises(ModelRejected, match="'bomb'") as raised:
        boss.load("bomb", str(tmp_path / "bomb.onnx"))
    assert str(tmp_path.parent) not in str(raised.value)
    assert is_served(boss)


# --- what replies give away ------------------------------------------------------------------------------------------

MISTAKES = [
    {"model": "none"},
    {"options": {"confidence": 7}},
    {"options": {"no such": 1}},
    {"kind": "frame"},
    {"kind": "tensors", "tensors": [["x", "float32", [9]]]},
    {"kind": "tensors", "tensors": [["z", "float32", [8]]]},
    {"kind": "tensors", "tensors": [["x", "float64", [8]]]},
    {"kind": "tensors", "tensors": [["x", "float32", [2**31 - 1] * 8]]},
    {"slot": [1, 2, 3]},
    {"timeout": -1},
    {"priority": 2**63},
    {"type": "lend", "slots": 1024, "size": 2**32},
    {"type": "lend", "ring": 77},
    {"type": "give_back", "ring": 77},
    {"type": "load", "name": "x", "path": "/dev/shm"},
    {"type": "load", "name": "x", "path": "none.onnx"},
    {"type": "load", "name": "x", "path": "zoo:none"},
    {"type": "unload", "name": "none"},
    {"type": "nonsense"},
    {"v": 2},
    {"type": "models"},
    {"type": "ready"},
    {"type": "status"},
]
REQUEST = {"v": 1, "type": "infer", "model": "m"}


def replies(address, key):
    """What the server says to all kinds of mistakes, and to random changes of good headers."""
    chance = random.Random(5)
    with dealer(address, key) as sender:
        for number, mistake in enumerate(MISTAKES, start=1):
            request = {**(REQUEST if "type" not in mistake else {"v": 1}), "id": number, **mistake}
            for payload in ([], [b""], [b"x" * 32], [b"x", b"y"]):
                sender.send_multipart([msgpack.packb(request), *payload])
                assert sender.poll(PATIENCE), request
                yield sender.recv_multipart()[0]
        header = msgpack.packb({**REQUEST, "id": 2**40})
        for _ in range(300):
            spoilt = bytearray(header)
            spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
            sender.send_multipart([bytes(spoilt), b"x"])
            assert sender.poll(PATIENCE), bytes(spoilt)
            yield sender.recv_multipart()[0]


def test_no_reply_names_what_is_inside(guarded):
    folder, keys, server = guarded
    pids = {str(pid) for pid in server.processes()}
    kinds = set()
    for header in itertools.chain(
        replies(server.address, keys["boss"]),
        replies(server.address, keys["camera"]),
        replies(f"ipc://{folder}/s", None),
    ):
        reply = msgpack.unpackb(header, strict_map_key=False)
        kinds.add(reply.get("code", reply["type"]))
        if reply["type"] == "result" and isinstance(reply["result"], dict) and "segment" in reply["result"]:
            continue  # the one name that is told: of a client's own lent ring
        text = str(reply)
        for inside in ("pinfer-", str(folder), "/tmp/", "ipc:///", ".py", "Traceback", "site-packages", ".onnx:"):
            assert inside not in text, text
        assert not re.search("0x[0-9a-f]{6,}", text), text  # an address in memory
        assert not pids & set(re.findall(r"\d+", text)), text
    assert kinds >= {"BAD_INPUT", "UNKNOWN_MODEL", "UNAUTHORIZED", "result"}


# --- shares ----------------------------------------------------------------------------------------------------------


def test_a_greedy_client_starves_nobody(guarded):
    folder, _, _ = guarded
    enough = threading.Event()

    def flood():
        with Client(f"ipc://{folder}/s", timeout=30) as greedy:
            while not enough.is_set():
                jobs = [greedy.submit("m", JOB) for _ in range(200)]
                for job in jobs:
                    job.exception(30)

    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        with Client(f"ipc://{folder}/s", timeout=30) as modest:
            outcomes = [modest.submit("m", JOB).exception(30) for _ in range(200)]
    finally:
        enough.set()
        flooding.join()
    assert {getattr(outcome, "code", "served") for outcome in outcomes} <= {"served", "RESOURCE_UNAVAILABLE"}
    assert outcomes.count(None) >= 100
