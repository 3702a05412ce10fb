"""Whatever a call is given by mistake is a named error that names the argument, before anything is sent."""

from __future__ import annotations

import asyncio
import inspect
import io
import math

import cv2
import numpy as np
import pytest

from parallel_infer import Answer, AsyncClient, Client, Runner, read_picture
from parallel_infer.errors import BadInput, ConfigError, InferError

FRAME = np.zeros((4, 6, 3), np.uint8)
NO_SECONDS = ["5", -1, math.nan, True, b"5", [5], 1 + 0j]
NO_COUNTS = ["4", 0, -1, 2.0, True, math.nan]
NAMES = ["", "x" * 129, 5, None, b"m"]
ONE_PICTURE = ["a.jpg", b"\xff\xd8", FRAME, FRAME[..., 0], {"x": FRAME}, io.BytesIO(b"x")]

# (method, arguments that are right, name of the wrong one, its values)
CALLS = [
    ("infer", ("echo", b"x"), {}, "timeout", [*NO_SECONDS, 0, 3601, math.inf]),
    ("infer", ("echo", b"x"), {}, "priority", ["1", 1.5, True, 101, math.nan]),
    ("infer", ("echo", b"x"), {}, "color", ["red", 5, ["rgb"]]),
    ("submit", ("echo", b"x"), {}, "timeout", [*NO_SECONDS, 0]),
    ("infer_many", ("echo", [b"x"]), {}, "timeout", NO_SECONDS),
    ("infer_many", ("echo", [b"x"]), {}, "in_flight", NO_COUNTS),
    ("infer_many", ("echo", [b"x"]), {}, "errors", ["ignore", True, 5, ["raise"], {}]),
    ("infer_many", ("echo",), {}, "pictures", [5, None, *ONE_PICTURE]),
    ("stream", ("echo", [b"x"]), {}, "timeout", NO_SECONDS),
    ("stream", ("echo", [b"x"]), {}, "in_flight", NO_COUNTS),
    ("stream", ("echo", [b"x"]), {}, "drop", ["oldest", None, 5, []]),
    ("stream", ("echo", [b"x"]), {}, "source", [5, None, "x" * 129]),
    ("stream", ("echo",), {}, "frames", [5, None, *ONE_PICTURE]),
    ("trace", (), {}, "seconds", [*NO_SECONDS, 0, 61, None]),
    ("load", ("m", "m.onnx"), {}, "timeout", NO_SECONDS),
    ("load", ("m",), {}, "path", [5, None, "", b"m.onnx"]),
    ("frame", (4,), {}, "width", ["4", 4.0, True, None, 0, -4]),
    ("frame", (), {"width": 4}, "height", ["4", 4.0, True, 0]),
]
MODEL_NAMES = [("infer", (b"x",)), ("submit", (b"x",)), ("infer_many", ([b"x"],)), ("stream", ([b"x"],))]


async def called(client: AsyncClient, method: str, *args: object, **options: object) -> None:
    found = getattr(client, method)(*args, **options)
    if inspect.isawaitable(found):
        await found
    elif hasattr(found, "__aenter__"):
        async with found:
            pass
    else:
        async for _ in found:
            pass


async def called_asynchronously(address: str, method: str, *args: object, **options: object) -> None:
    async with AsyncClient(address, timeout=10) as client:
        await called(client, method, *args, **options)


def called_blocking(client: Client, method: str, *args: object, **options: object) -> None:
    found = getattr(client, method)(*args, **options)
    if hasattr(found, "__enter__") and method == "frame":
        with found:
            pass


@pytest.mark.parametrize(("method", "args", "options", "name", "values"), CALLS, ids=[f"{c[0]}-{c[3]}" for c in CALLS])
def test_a_wrong_argument_is_named(server, method, args, options, name, values):
    with Client(server.address, timeout=10) as client:
        for value in values:
            wrong = {**options, name: value}
            for call in (
                lambda: called_blocking(client, method, *args, **wrong),  # noqa: B023
                lambda: asyncio.run(called_asynchronously(server.address, method, *args, **wrong)),  # noqa: B023
            ):
                with pytest.raises(BadInput) as caught:
                    call()
                assert name in str(caught.value) or "pixels" in str(caught.value), (value, str(caught.value))
    assert server.count == 0


@pytest.mark.parametrize(("method", "args"), MODEL_NAMES)
def test_a_wrong_name_of_a_model_is_named(server, method, args):
    with Client(server.address) as client:
        for value in NAMES:
            with pytest.raises(BadInput, match="model's name is a text of 1 to 128 characters"):
                called_blocking(client, method, value, *args)
        for value in NAMES:
            with pytest.raises(BadInput, match="model's name"):
                client.load(value, "m.onnx")
            with pytest.raises(BadInput, match="model's name"):
                client.unload(value)


def test_a_callback_that_cannot_be_called_is_named(server):
    with Client(server.address) as client, pytest.raises(BadInput, match="callback"):
        client.submit("echo", b"x", callback="done")


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_client_of_wrong_arguments_is_not_made(server, kind):
    for address in (5, None, b"tcp://127.0.0.1:5555"):
        with pytest.raises(BadInput, match="address"):
            kind(address)
    for timeout in ("5", -1, math.nan, True, None):
        with pytest.raises(BadInput, match="timeout"):
            kind(server.address, timeout=timeout)


def test_waiting_for_a_future_takes_seconds(server):
    with Client(server.address) as client:
        future = client.submit("echo", b"x")
        for timeout in NO_SECONDS:
            with pytest.raises(BadInput, match="timeout"):
                future.wait(timeout)
        future.wait(math.inf)
        assert future.done()


@pytest.mark.parametrize("key", [5, True, b"camera.key", object()])
def test_a_key_that_is_none_is_named(server, key):
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match="The key is a .*: neither the path of a key file"):
            kind(server.address, key=key)


def test_pictures_to_read_and_to_draw_on_are_files_or_bytes():
    for source in (5, None, [1], FRAME, object()):
        with pytest.raises(BadInput, match="neither the path of a picture nor the bytes of one"):
            read_picture(source)
    with pytest.raises(BadInput, match="cannot be read: embedded null"):
        read_picture("a\0b")
    png = cv2.imencode(".png", FRAME)[1].tobytes()
    for source in (png, bytearray(png), memoryview(png)):
        np.testing.assert_array_equal(read_picture(source), FRAME)
    answer = Answer("embedding", "m", {"embedding": np.ones(3, np.float32)}, width=6, height=4)
    np.testing.assert_array_equal(answer.draw(bytearray(png)), FRAME)
    for frame in (5, None, [[1]]):
        with pytest.raises(ValueError, match="a frame is uint8"):
            answer.draw(frame)


def test_arrays_of_tensors_are_taken_row_by_row(server):
    """A stack of vectors is many inputs of a tensor model, not one picture."""
    with Client(server.address) as client:
        assert len(client.infer_many("echo", np.zeros((5, 7), np.float32))) == 5
        assert len(client.infer_many("echo", np.zeros((2, 4, 6, 3), np.uint8))) == 2


def test_a_runner_names_wrong_arguments(tiny_model):
    for jobs in NO_COUNTS:
        with pytest.raises(ConfigError, match="jobs"):
            Runner(tiny_model, jobs=jobs)
    for threads in ("2", -1, 1.5, True):
        with pytest.raises(ConfigError, match="threads"):
            Runner(tiny_model, threads=threads)
    with Runner(tiny_model, provider="cpu", threads=1) as runner:
        handle = runner.execute_async({"x": np.zeros((1, 2), np.float32)})
        for timeout in NO_SECONDS:
            with pytest.raises(BadInput, match="timeout"):
                runner.wait(handle, timeout)
            with pytest.raises(BadInput, match="timeout"):
                runner.run_parallel([], timeout=timeout)
        for workers in NO_COUNTS:
            with pytest.raises((ConfigError, InferError), match="workers"):
                runner.run_parallel([], workers=workers)


@pytest.fixture
def tiny_model() -> bytes:
    """y = x + x, float32 [batch, 2]."""
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "twice", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def test_a_blocking_client_takes_no_asynchronous_source(nobody):
    async def pictures():
        yield b"x"

    with Client(nobody) as client:
        for call in (client.infer_many, client.stream):
            with pytest.raises(BadInput, match="a async_generator, which only AsyncClient takes"):
                call("echo", pictures())
