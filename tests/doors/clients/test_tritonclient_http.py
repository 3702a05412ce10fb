"""tritonclient over HTTP: one at a time, threads, asyncio, compression both ways, binary and JSON tensors."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.doors.clients.conftest import Doors

pytestmark = pytest.mark.clients
triton = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
aio = pytest.importorskip("tritonclient.http.aio", reason="tritonclient is not installed")
refusal = pytest.importorskip("tritonclient.utils").InferenceServerException

VALUES = np.random.default_rng(3).normal(size=(2, 3, 224, 224)).astype(np.float32)  # no picture's
COMPRESSIONS = (None, "gzip", "deflate")
SIZES = {"coffee.png": (600, 400), "astronaut.png": (512, 512), "chelsea.png": (451, 300)}
TIMEOUT = 60.0  # seconds


@pytest.fixture(scope="module")
def client(doors: Doors) -> Iterator[Any]:
    with triton.InferenceServerClient(
        doors.http, concurrency=8, connection_timeout=TIMEOUT, network_timeout=TIMEOUT
    ) as found:
        yield found


@pytest.fixture(scope="module")
def wanted(zoo: Path) -> Any:
    """What the classifier's graph makes of VALUES."""
    session = onnxruntime.InferenceSession(zoo / "classifier.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {"images": VALUES})[0]


def tensor(values: Any = VALUES, *, binary: bool = True) -> list[Any]:
    given = triton.InferInput("images", list(values.shape), "FP32")
    given.set_data_from_numpy(values, binary_data=binary)
    return [given]


def picture(pictures: Path, *names: str) -> list[Any]:
    given = triton.InferInput("image", [len(names), 1], "BYTES")
    given.set_data_from_numpy(np.array([[(pictures / name).read_bytes()] for name in names], object))
    return [given]


@pytest.mark.parametrize(("asked", "answered"), list(itertools.product(COMPRESSIONS, COMPRESSIONS)))
def test_compression(client: Any, wanted: Any, asked: str | None, answered: str | None) -> None:
    result = client.infer(
        "classifier", tensor(), request_compression_algorithm=asked, response_compression_algorithm=answered
    )
    np.testing.assert_allclose(result.as_numpy("probs"), wanted, atol=1e-5)


def test_tensors_as_json(client: Any, wanted: Any) -> None:
    output = triton.InferRequestedOutput("probs", binary_data=False)
    result = client.infer(
        "classifier",
        tensor(VALUES[:1], binary=False),
        outputs=[output],
        request_compression_algorithm="gzip",
        response_compression_algorithm="gzip",
    )
    assert "data" in result.get_output("probs")
    np.testing.assert_allclose(result.as_numpy("probs"), wanted[:1], atol=1e-5)


def test_nan_goes_there_and_back(client: Any, zoo: Path) -> None:
    values = VALUES[:1].copy()
    values[0, 0, 0, 0] = np.nan
    session = onnxruntime.InferenceSession(zoo / "classifier.onnx", providers=["CPUExecutionProvider"])
    output = triton.InferRequestedOutput("probs", binary_data=False)
    found = client.infer("classifier", tensor(values, binary=False), outputs=[output]).as_numpy("probs")
    np.testing.assert_allclose(found.astype(np.float32), session.run(None, {"images": values})[0], atol=1e-5)


def test_json_and_binary_in_one_request(client: Any, pictures: Path) -> None:
    given = triton.InferInput("image", [1, 1], "BYTES")
    encoded = base64.b64encode((pictures / "coffee.png").read_bytes())
    given.set_data_from_numpy(np.array([[encoded]], object), binary_data=False)
    outputs = [
        triton.InferRequestedOutput("answer", binary_data=False),
        triton.InferRequestedOutput("boxes", binary_data=True),
        triton.InferRequestedOutput("classes", binary_data=False),
    ]
    result = client.infer("detector.picture", [given], outputs=outputs, parameters={"class_filter": "cup"})
    names = [output["name"] for output in result.get_response()["outputs"]]
    assert names == ["answer", "boxes", "classes"]
    answer = json.loads(result.as_numpy("answer").item())
    box = result.as_numpy("boxes")[0, 0]
    found = answer["predictions"][0]
    assert (found["class"], result.as_numpy("classes").item(0)) == ("cup", found["class_id"])
    assert (box[0] + box[2]) / 2 == pytest.approx(found["x"], abs=0.01)
    assert box[3] - box[1] == pytest.approx(found["height"], abs=0.01)


@pytest.mark.parametrize("binary", [True, False])
def test_classification(client: Any, wanted: Any, binary: bool) -> None:
    output = triton.InferRequestedOutput("probs", binary_data=binary, class_count=3)
    texts = client.infer("classifier", tensor(), outputs=[output]).as_numpy("probs")
    assert texts.shape == (2, 3)
    for row, scores in zip(texts, wanted, strict=True):
        parts = [(text.decode() if isinstance(text, bytes) else text).split(":") for text in row]
        best = np.argsort(-scores)[:3]
        assert [int(index) for _, index, _ in parts] == best.tolist()
        assert [float(score) for score, *_ in parts] == pytest.approx(scores[best].tolist(), abs=1e-5)
        assert all(name for *_, name in parts)


def test_classification_of_pictures(client: Any, pictures: Path) -> None:
    scores = triton.InferRequestedOutput("scores", class_count=2)
    given = picture(pictures, "coffee.png", "astronaut.png")
    texts = client.infer("detector.picture", given, outputs=[scores]).as_numpy("scores")
    assert [row[0].decode().partition(":")[2] for row in texts] == ["41:cup", "0:person"]
    outputs = [scores, triton.InferRequestedOutput("classes"), triton.InferRequestedOutput("answer")]
    result = client.infer("classifier.picture", picture(pictures, "chelsea.png"), outputs=outputs)
    best = json.loads(result.as_numpy("answer").item())["predictions"][0]
    score, number, name = result.as_numpy("scores")[0, 0].decode().split(":")
    assert (int(number), name) == (result.as_numpy("classes").item(0), best["class"])
    assert float(score) == pytest.approx(best["confidence"], abs=1e-5)
    boxes = triton.InferRequestedOutput("boxes", class_count=2)
    with pytest.raises(refusal, match="output 'boxes' holds no scores"):
        client.infer("detector.picture", given, outputs=[boxes])
    tensor = triton.InferInput("images", [1, 3, 416, 416], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 3, 416, 416), np.float32))
    boxes = triton.InferRequestedOutput("output0", class_count=2)
    texts = client.infer("detector", [tensor], outputs=[boxes]).as_numpy("output0")
    assert all(text.count(b":") == 1 for text in texts.reshape(-1))  # places in a row of boxes and scores have no name


def test_shared_memory_is_refused(client: Any, pictures: Path) -> None:
    elsewhere = triton.InferInput("images", [1, 3, 224, 224], "FP32")
    elsewhere.set_shared_memory("region", 3 * 224 * 224 * 4)
    with pytest.raises(refusal, match="input 'images' names a shared memory region"):
        client.infer("classifier", [elsewhere])
    output = triton.InferRequestedOutput("probs")
    output.set_shared_memory("region", 4000)
    with pytest.raises(refusal, match="output 'probs' names a shared memory region"):
        client.infer("classifier", tensor(), outputs=[output])


def test_threads_of_one_client(client: Any, pictures: Path) -> None:
    names = [*SIZES] * 4
    asked = [client.async_infer("classifier.picture", picture(pictures, name), request_id=name) for name in names]
    for name, waiting in zip(names, asked, strict=True):
        result = waiting.get_result()
        size = json.loads(result.as_numpy("answer").item())["image"]
        assert result.get_response()["id"] == name
        assert (size["width"], size["height"]) == SIZES[name]


def test_asyncio(doors: Doors, wanted: Any) -> None:
    async def main() -> None:
        async with aio.InferenceServerClient(doors.http, conn_timeout=TIMEOUT) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("classifier")
            assert (await client.get_model_metadata("classifier"))["inputs"][0]["shape"] == [-1, 3, 224, 224]
            compressed = {"request_compression_algorithm": "gzip", "response_compression_algorithm": "deflate"}
            results = await asyncio.gather(
                *(client.infer("classifier", tensor(VALUES[:1])) for _ in range(4)),
                client.infer("classifier", tensor(VALUES[:1]), **compressed),
            )
            for result in results:
                np.testing.assert_allclose(result.as_numpy("probs"), wanted[:1], atol=1e-5)
            with pytest.raises(refusal, match="no model 'nobody' is served"):
                await client.infer("nobody", tensor(VALUES[:1]))

    asyncio.run(main())


def test_parameters_of_the_protocol_are_no_options(client: Any, pictures: Path) -> None:
    result = client.infer(
        "detector.picture",
        picture(pictures, "coffee.png"),
        request_id="seven",
        sequence_id="line 1",
        sequence_start=True,
        priority=1,
        timeout=60_000_000,
        parameters={"max_detections": "1", "confidence": 0.3},
    )
    assert result.get_response()["id"] == "seven"
    assert result.as_numpy("num_detections").item() == 1
    with pytest.raises(refusal, match="unknown option 'confidance'; did you mean 'confidence'"):
        client.infer("detector.picture", picture(pictures, "coffee.png"), parameters={"confidance": 0.3})


def test_a_timeout_that_is_over(client: Any) -> None:
    with pytest.raises(refusal, match="504.*deadline"):
        client.infer("classifier", tensor(), timeout=1)


def test_extensions_that_are_not_there(doors: Doors, client: Any) -> None:
    for ask in (client.get_system_shared_memory_status, client.get_cuda_shared_memory_status, client.get_log_settings):
        with pytest.raises(refusal, match="404.*there is nothing at"):
            ask()
    extensions = client.get_server_metadata()["extensions"]
    assert "binary_tensor_data" in extensions
    assert not [name for name in extensions if "shared_memory" in name or "trace" in name or "logging" in name]


def test_the_repository(client: Any) -> None:
    with pytest.raises(refusal, match="parameter 'config' is not taken"):
        client.load_model("pose", config="{}")
    with pytest.raises(refusal, match=r"404.*no model 'nobody' is served; served are: [\w, ]+$"):
        client.unload_model("nobody")
    client.unload_model("pose")
    assert not client.is_model_ready("pose")
    states = {model["name"]: model["state"] for model in client.get_model_repository_index()}
    assert states.get("pose", "UNAVAILABLE") == "UNAVAILABLE"
    client.load_model("pose")
    assert client.is_model_ready("pose")


def test_statistics(client: Any) -> None:
    def counted() -> int:
        (stats,) = client.get_inference_statistics("classifier")["model_stats"]
        return int(stats["inference_count"])

    before = counted()
    client.infer("classifier", tensor())
    assert counted() == before + len(VALUES)
    assert {stats["name"] for stats in client.get_inference_statistics()["model_stats"]} >= {"detector", "classifier"}
