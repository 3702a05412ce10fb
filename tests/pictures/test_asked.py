"""Pictures in every form through a real server: the same answer whatever form they came in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from PIL import Image

import parallel_infer
from parallel_infer import AsyncClient, Client
from parallel_infer.errors import BadInput
from parallel_infer.tools.local_server import local_server
from stages.preprocess import Preprocess
from stages.recognise import describe

SIDE = 416  # of the detector's input


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    models = ["--model", "detector=zoo:detector", "--model", "classifier=zoo:classifier"]
    with local_server(*models, "--shared-memory-mb", "64", "--threads", "1", "--max-batch-size", "2") as started:
        yield started.address


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def frame(pictures: Path) -> np.ndarray:
    """A frame of the size of the detector's input: it becomes a row as it is."""
    found = cv2.imread(str(pictures / "astronaut.png"))
    assert found is not None
    return cv2.resize(found, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def same(answer: Any, expected: Any) -> None:
    assert len(expected.boxes) > 0
    assert answer.names == expected.names
    assert np.abs(answer.boxes - expected.boxes).max() < 1
    assert np.abs(answer.scores - expected.scores).max() < 0.01


def test_rgb_frames_are_answered_as_bgr_ones(client: Client, frame: np.ndarray) -> None:
    expected = client.infer("detector", frame)
    rgb = frame[..., ::-1]
    same(client.infer("detector", rgb, color="rgb"), expected)
    same(client.submit("detector", rgb, color="rgb").result(), expected)
    same(client.infer_many("detector", [rgb], color="rgb")[0], expected)
    same(next(iter(client.stream("detector", [rgb], color="rgb")))[1], expected)
    swapped = client.infer("classifier", rgb)
    assert np.abs(client.infer("classifier", frame).scores - swapped.scores).max() > 0.01  # it does make a difference


def test_the_frame_that_is_filled_in_place_may_be_rgb(client: Client, frame: np.ndarray) -> None:
    with client.frame(SIDE, SIDE) as held:
        held[:] = frame[..., ::-1]
        same(client.infer("detector", held, color="rgb"), client.infer("detector", frame))


async def _asked(address: str, rgb: np.ndarray) -> Any:
    async with AsyncClient(address, timeout=60) as client:
        return await client.infer("detector", rgb, color="rgb")


def test_rgb_frames_of_the_asynchronous_client(address: str, client: Client, frame: np.ndarray) -> None:
    import asyncio

    same(asyncio.run(_asked(address, frame[..., ::-1])), client.infer("detector", frame))


def test_encoded_pictures_know_their_colours(client: Client, frame: np.ndarray) -> None:
    png = cv2.imencode(".png", frame)[1]
    expected = client.infer("detector", frame)
    for given in (png, png.tobytes(), png.reshape(-1, 1)):
        same(client.infer("detector", given), expected)
        same(client.infer("detector", given, color="rgb"), expected)
    with pytest.raises(BadInput, match="not a picture"):
        client.infer("detector", np.zeros(100, np.uint8))


def test_pictures_of_pillow_and_floats(client: Client, frame: np.ndarray) -> None:
    expected = client.infer("detector", frame)
    rgb = np.ascontiguousarray(frame[..., ::-1])
    same(client.infer("detector", Image.fromarray(rgb)), expected)
    same(client.infer("detector", Image.fromarray(rgb), color="rgb"), expected)
    same(client.infer("detector", rgb.astype(np.float32) / 255, color="rgb"), expected)
    same(client.infer("detector", frame.transpose(2, 0, 1), color="bgr"), expected)


def declared(frame: np.ndarray) -> np.ndarray:
    """The frame as the detector's file declares its input, float32 [1, 3, h, w]."""
    spec = describe("detector", Path(parallel_infer.__file__).parent / "zoo" / "detector.onnx")
    preprocess = msgspec.convert(spec.preprocess, Preprocess)
    pixels = frame if preprocess.color == "bgr" else frame[..., ::-1]
    floats = (pixels.astype(np.float32) - np.float32(preprocess.mean)) / np.float32(preprocess.std)
    return np.ascontiguousarray(floats.transpose(2, 0, 1)[None])


def test_the_tensor_that_the_file_declares_is_the_models_own_input(client: Client, frame: np.ndarray) -> None:
    assert client.models()[0]["inputs"][0][1] == "uint8"  # the rows are not what the file declares
    expected, tensor = client.infer("detector", frame), declared(frame)
    for given in (tensor, tensor[0], tensor.astype(np.float64)):
        answer = client.infer("detector", given)
        same(answer, expected)
    name = client.models()[0]["inputs"][0][0]
    same(client.infer("detector", {name: tensor}), expected)


def test_a_declared_tensor_of_no_whole_pixels_is_refused_with_what_to_do(client: Client, frame: np.ndarray) -> None:
    tensor = declared(frame)
    for wrong in (tensor + np.float32(0.001), tensor * 3, np.full_like(tensor, np.nan)):
        with pytest.raises(
            BadInput, match=r"does not hold normalised whole pixel values 0 to 255: .*uint8_rows = false"
        ):
            client.infer("detector", wrong)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda frame: np.dstack([frame, frame[..., :1]]), r'uint8 \[416, 416, 4\] came; .*color="rgb" or color="bgr"'),
        (lambda frame: frame.astype(np.float32) / 255, r'values of 0 to 1, say the order .*color="rgb" or color="bgr"'),
        (lambda frame: frame.transpose(2, 0, 1), r'color="rgb" or color="bgr"'),
        (lambda frame: frame.astype(np.uint16), r"\(array >> 8\)\.astype\(np\.uint8\)"),
        (lambda frame: frame > 100, r"array\.astype\(np\.uint8\) \* 255"),
        (lambda frame: frame.astype(np.int32), r"array\.astype\(np\.uint8\)"),
        (lambda frame: np.stack([frame, frame]), "one request takes one picture: .*infer_many"),
        (
            lambda frame: np.zeros((1, 3, 100, 100), np.float32),
            r"or float32 \[1, 3, 416, 416\]; float32 \[1, 3, 100, 100\] came; .* of a picture of 0 to 1",
        ),
        (
            lambda frame: np.full((3, 640, 416), -2.1, np.float32),
            r"takes 416 x 416: resize .* before it is normalised$",
        ),
    ],
)
def test_arrays_that_are_not_plain_are_refused_with_what_to_do(client: Client, frame: np.ndarray, make, told) -> None:
    with pytest.raises(BadInput, match=told):
        client.infer("detector", make(frame))
