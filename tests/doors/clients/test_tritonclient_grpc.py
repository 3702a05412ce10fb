"""tritonclient over gRPC: one at a time, callbacks, streams, asyncio, compression, large messages."""

from __future__ import annotations

import asyncio
import json
import queue
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.doors.clients.conftest import Doors

pytestmark = pytest.mark.clients
triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
aio = pytest.importorskip("tritonclient.grpc.aio", reason="tritonclient is not installed")
refusal = pytest.importorskip("tritonclient.utils").InferenceServerException

VALUES = np.random.default_rng(4).normal(size=(2, 3, 224, 224)).astype(np.float32)
COMPRESSIONS = (None, "gzip", "deflate")
PATIENCE = 60.0  # seconds


@pytest.fixture(scope="module")
def client(doors: Doors) -> Iterator[Any]:
    with triton.InferenceServerClient(doors.grpc) as found:
        yield found


@pytest.fixture(scope="module")
def wanted(zoo: Path) -> Any:
    """What the classifier's graph makes of VALUES."""
    session = onnxruntime.InferenceSession(zoo / "classifier.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {"images": VALUES})[0]


def tensor(values: Any = VALUES) -> list[Any]:
    given = triton.InferInput("images", list(values.shape), "FP32")
    given.set_data_from_numpy(values)
    return [given]


def image(pictures: Path) -> list[Any]:
    given = triton.InferInput("image", [1, 1], "BYTES")
    given.set_data_from_numpy(np.array([[(pictures / "coffee.png").read_bytes()]], object))
    return [given]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_compression(client: Any, wanted: Any, compression: str | None) -> None:
    result = client.infer("classifier", tensor(), compression_algorithm=compression)
    np.testing.assert_allclose(result.as_numpy("probs"), wanted, atol=1e-5)


def test_callbacks(client: Any, wanted: Any) -> None:
    done: queue.Queue[tuple[Any, Any]] = queue.Queue()
    for number in range(6):
        client.async_infer(
            "classifier", tensor(), lambda result, error: done.put((result, error)), request_id=str(number)
        )
    client.async_infer("nobody", tensor(), lambda result, error: done.put((result, error)))
    ids, errors = set(), []
    for _ in range(7):
        result, error = done.get(timeout=PATIENCE)
        if error is None:
            ids.add(result.get_response().id)
            np.testing.assert_allclose(result.as_numpy("probs"), wanted, atol=1e-5)
        else:
            errors.append(str(error))
    assert ids == set("012345")
    assert len(errors) == 1
    assert "no model 'nobody'" in errors[0]


def test_a_compressed_stream(client: Any, pictures: Path) -> None:
    done: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: done.put((result, error)), compression_algorithm="gzip")
    try:
        for number in range(4):
            client.async_stream_infer(
                "classifier.picture", image(pictures), request_id=str(number), enable_empty_final_response=True
            )
        ids = set()
        for _ in range(4):
            result, error = done.get(timeout=PATIENCE)
            assert error is None
            ids.add(result.get_response().id)
            assert result.get_response().parameters["triton_final_response"].bool_param
            assert json.loads(result.as_numpy("answer").item())["image"] == {"width": 600, "height": 400}
        assert ids == set("0123")
    finally:
        client.stop_stream()


def test_asyncio(doors: Doors, wanted: Any) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for name in ("classifier", "nobody", "classifier"):
            yield {"model_name": name, "inputs": tensor(), "request_id": name}

    async def main() -> None:
        async with aio.InferenceServerClient(doors.grpc) as client:
            assert await client.is_model_ready("classifier")
            results = await asyncio.gather(
                *(client.infer("classifier", tensor(), compression_algorithm=kind) for kind in COMPRESSIONS)
            )
            for result in results:
                np.testing.assert_allclose(result.as_numpy("probs"), wanted, atol=1e-5)
            streamed = [(result, error) async for result, error in client.stream_infer(requests())]
            assert sorted("" if error is None else str(error)[:13] for _, error in streamed) == [
                "",
                "",
                "UNKNOWN_MODEL",
            ]

    asyncio.run(main())


def test_classification(client: Any, wanted: Any) -> None:
    texts = client.infer(
        "classifier", tensor(), outputs=[triton.InferRequestedOutput("probs", class_count=2)]
    ).as_numpy("probs")
    found = [[int(text.decode().split(":")[1]) for text in row] for row in texts]
    assert found == np.argsort(-wanted, axis=1)[:, :2].tolist()


def test_messages_above_grpcs_usual_4_mb(client: Any) -> None:
    values = np.zeros((4, 3, 416, 416), np.float32)
    assert client.infer("detector", tensor(values)).as_numpy("output0").shape == (4, 84, 3549)


def test_options_of_every_type(client: Any, pictures: Path) -> None:
    result = client.infer(
        "detector.picture",
        image(pictures),
        parameters={"confidence": "0.3", "max_detections": 1, "class_agnostic": True},
    )
    assert result.as_numpy("num_detections").item() == 1


def test_what_is_refused(client: Any) -> None:
    with pytest.raises(refusal, match="DEADLINE_EXCEEDED"):
        client.infer("classifier", tensor(), timeout=1)
    with pytest.raises(refusal, match="INVALID_ARGUMENT.*parameter 'config' is not taken"):
        client.load_model("classifier", config="{}")
    with pytest.raises(refusal, match=r"NOT_FOUND.*no model 'nobody' is served; served are: [\w, ]+$"):
        client.unload_model("nobody")
    elsewhere = triton.InferInput("images", [1, 3, 224, 224], "FP32")
    elsewhere.set_shared_memory("region", 3 * 224 * 224 * 4)
    with pytest.raises(refusal, match="input 'images' names a shared memory region"):
        client.infer("classifier", [elsewhere])
    output = triton.InferRequestedOutput("probs")
    output.set_shared_memory("region", 4000)
    with pytest.raises(refusal, match="output 'probs' names a shared memory region"):
        client.infer("classifier", tensor(), outputs=[output])
    with pytest.raises(refusal, match="UNIMPLEMENTED"):
        client.get_system_shared_memory_status()
