"""Texts about wrong values speak of the field and of what it takes, and never of the library's types and paths."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from parallel_infer import protocol
from parallel_infer.client.payload import payload_of
from parallel_infer.client.requests import job_of
from parallel_infer.errors import BadInput, ConfigError
from parallel_infer.gateway.readiness import ReadinessCheck
from parallel_infer.gateway.requests import read_request
from parallel_infer.ipc.client_socket import ReplyAddress
from parallel_infer.ipc.messages import WorkerStatus
from stages.recognise.overrides import parse_overrides
from stages.tasks.detect import Detect
from tests.gateway.core_rig import reported
from tests.tasks import samples

INFER = {"v": 1, "type": "infer", "id": 7, "model": "m"}


class Frame:
    def __init__(self, data: bytes) -> None:
        self.buffer = memoryview(data)


def refusal(header: Any) -> str:
    requester = ReplyAddress(None, b"client")  # type: ignore[arg-type]
    with pytest.raises(BadInput) as caught:
        read_request([Frame(msgspec.msgpack.encode(header))], requester)
    assert requester.request == header.get("id", 0)
    return str(caught.value)


REQUESTS = [
    ({"priority": 101}, "wrong request: priority: expected a whole number from -100 to 100"),
    ({"priority": "high"}, "wrong request: priority: expected a whole number from -100 to 100, got a text"),
    ({"priority": None}, "wrong request: priority: expected a whole number from -100 to 100, got nothing"),
    ({"timeout": 0}, "wrong request: timeout: expected a number above 0 and at most 3600"),
    ({"kind": "photo"}, "wrong request: kind: expected one of frame, picture, tensors, got 'photo'"),
    ({"model": 5}, "wrong request: model: expected a text of 1 to 128 characters, got a whole number"),
    ({"model": ""}, "wrong request: model: expected a text of 1 to 128 characters"),
    ({"prioriy": 5}, "wrong request: unknown field prioriy"),
    ({"type": "infre"}, "wrong request: type: 'infre' is not known"),
    ({"tensors": [["x", "uint8", [-1]]]}, "wrong request: tensors: expected a whole number >= 0"),
]


@pytest.mark.parametrize(("wrong", "text"), REQUESTS, ids=lambda value: str(value)[:20])
def test_a_wrong_request_is_told_by_its_field(wrong: dict[str, Any], text: str) -> None:
    assert refusal({**INFER, **wrong}) == text


def test_a_missing_field_is_named() -> None:
    assert refusal({"v": 1, "type": "infer", "model": "m"}) == "wrong request: the field id is missing"


OPTIONS = [
    (
        {"class_filter": "person"},
        "option class_filter: expected a list of class names and class numbers, at least one, got a text",
    ),
    ({"class_filter": []}, "option class_filter: expected a list of class names and class numbers, at least one"),
    ({"class_filter": [1.5]}, "option class_filter: expected a list of class names and class numbers, at least one"),
    ({"confidence": 2}, "option confidence: expected a number from 0 to 1"),
    ({"confidence": "high"}, "option confidence: expected a number from 0 to 1, got a text"),
    ({"max_detections": 0}, "option max_detections: expected a whole number from 1 to 100000"),
    ({"decode": "quick"}, "option decode: expected one of exact, fast, got 'quick'"),
    ({"class_agnostic": "yes"}, "option class_agnostic: expected true or false, got a text"),
]


@pytest.mark.parametrize(("wrong", "text"), OPTIONS, ids=lambda value: str(value)[:24])
def test_a_wrong_option_is_told_by_its_name(wrong: dict[str, Any], text: str) -> None:
    task = Detect(samples.spec("detect", "yolov8"))
    with pytest.raises(BadInput) as caught:
        task.options(samples.encode(**wrong))
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"conf": 2.0}, "model option conf: expected a number from 0 to 1"),
        ({"kpt_shape": [0, 1]}, "model option kpt_shape: expected [keypoints, 2 or 3]"),
        ({"imgsz": [1, "a"]}, "model option imgsz: expected one size from 1 to 16384, or [height, width]"),
        ({"shapes": {"x": [0]}}, "model option shapes: expected a list of whole numbers from 1 on for each input"),
    ],
)
def test_a_wrong_option_of_a_model_is_told_by_its_name(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_overrides(wrong)
    assert str(caught.value) == text


@pytest.mark.parametrize("priority", [101, -101, 1.5, "high", None, True, 10**30])
def test_the_client_says_what_a_priority_is_before_it_sends_one(priority: Any) -> None:
    with pytest.raises(BadInput, match="no whole number from -100 to 100"):
        job_of("m", 1.0, priority, {})


def test_numbers_of_numpy_are_priorities() -> None:
    assert job_of("m", 1.0, np.int64(3), {}).priority == 3  # type: ignore[arg-type]


def test_what_is_empty_is_said_of_what_was_given(tmp_path: Any) -> None:
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(BadInput, match=r"empty.jpg' is empty: it holds no picture"):
        payload_of(tmp_path / "empty.jpg")
    with pytest.raises(BadInput, match="The picture is empty"):
        payload_of(b"")
    with pytest.raises(BadInput, match=r"shape \[0, 4, 3\] is no picture"):
        payload_of(np.zeros((0, 4, 3), np.uint8))
    with (tmp_path / "empty.jpg").open("rb") as file, pytest.raises(BadInput, match="The file is empty"):
        payload_of(file)


@pytest.mark.parametrize(
    ("up", "text"),
    [
        (("infer",), "WORKER_LOST: no decode and no postprocess worker is up"),
        (("infer", "decode"), "WORKER_LOST: no postprocess worker is up"),
    ],
)
def test_readiness_names_the_stages_that_are_away_one_by_one(up: tuple[str, ...], text: str) -> None:
    found: list[dict[str, Any]] = []
    check = ReadinessCheck(["m"], 0.0, found.append)
    workers = {stage: WorkerStatus(stage, "", 0, 0, 0.0) for stage in up}
    check.begin(replace(reported(m={}), workers=workers), 0.0)
    assert found[0]["models"] == {"m": text}


def test_the_protocol_says_the_same_range_as_the_client() -> None:
    assert (protocol.LEAST_PRIORITY, protocol.MOST_PRIORITY) == (-100, 100)
