"""Bodies of the Open Inference Protocol: what is read, what is written, what is refused and how it is called."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest

from parallel_infer.doors.http.oip_codec import Binary, json_length, read_request, read_single, write_response
from parallel_infer.doors.service import InferRequest, InferResponse, NamedTensor
from parallel_infer.errors import BadInput

VALUES = np.arange(6, dtype=np.float32).reshape(1, 2, 3)


def read(body: bytes, header: str | None = None) -> tuple[InferRequest, Binary]:
    view = memoryview(body)
    return read_request("m", "", "me", view, view[: json_length(header, len(body))])


def described(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2, 3], "data": VALUES.reshape(-1).tolist()}
    return {"inputs": [{key: value for key, value in (tensor | changes).items() if value is not None}]}


@pytest.mark.parametrize("data", [VALUES.reshape(-1).tolist(), VALUES.tolist()], ids=["flat", "nested"])
def test_numbers_in_json_are_read_flat_or_nested(data: list[Any]) -> None:
    request, binary = read(json.dumps({"id": "7", **described(data=data)}).encode())
    assert request.identity == "7"
    assert request.client == "me"
    np.testing.assert_array_equal(request.inputs[0].data, VALUES)
    assert not binary.of("y")


def test_blobs_follow_the_json_in_order_and_nothing_is_left_over() -> None:
    body = described(data=None, parameters={"binary_data_size": 24})
    body["parameters"] = {"binary_data_output": True}
    body["inputs"].append({"name": "t", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 13}})
    head = json.dumps(body).encode()
    texts = struct.pack("<I", 3) + b"abc" + struct.pack("<I", 2) + b"de"
    request, binary = read(head + VALUES.tobytes() + texts, str(len(head)))
    np.testing.assert_array_equal(request.inputs[0].data, VALUES)
    assert [bytes(text) for text in request.inputs[1].data] == [b"abc", b"de"]
    assert binary.of("anything")
    with pytest.raises(BadInput, match="1 bytes of the body belong to no input"):
        read(head + VALUES.tobytes() + texts + b"x", str(len(head)))


def test_a_lone_picture_in_a_blob_needs_no_length() -> None:
    picture = b"\xff\xd8\xff" + bytes(50)
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": len(picture)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    request, _ = read(head + picture, str(len(head)))
    assert [bytes(text) for text in request.inputs[0].data] == [picture]


def test_texts_in_json_are_base64() -> None:
    body = {
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(b"pic").decode()]}]
    }
    request, _ = read(json.dumps(body).encode())
    assert request.inputs[0].data == [b"pic"]
    body["inputs"][0]["data"] = ["data:image/png;base64," + base64.b64encode(b"pic").decode()]
    assert read(json.dumps(body).encode())[0].inputs[0].data == [b"pic"]


def test_what_json_has_no_numbers_for_is_read_as_python_and_perf_analyzer_write_it() -> None:
    body = described(data=[1.0, float("nan"), float("inf"), float("-inf"), 0.5, 0.0])
    request, _ = read(json.dumps(body).encode())
    np.testing.assert_array_equal(
        np.asarray(request.inputs[0].data).reshape(-1), np.array([1, np.nan, np.inf, -np.inf, 0.5, 0], np.float32)
    )


BAD: dict[str, tuple[dict[str, Any] | bytes, str | None, str]] = {
    "no JSON": (b"{", None, "JSON cannot be read"),
    "no inputs": ({"inputs": []}, None, "inputs"),
    "no data": (described(data=None), None, "has no data"),
    "both": (described(parameters={"binary_data_size": 0}), None, "both data and binary_data_size"),
    "too few": (described(data=[1.0]), None, "holds 1 elements; its shape"),
    "a text among numbers": (described(data=["1"] * 6), None, "is no FP32"),
    "true among numbers": (described(data=[True] * 6), None, "is no FP32"),
    "a fraction as an integer": (described(datatype="INT32", data=[0.5] * 6), None, "is no INT32"),
    "out of range": (described(datatype="UINT8", data=[256] * 6), None, "out of the range of UINT8"),
    "out of range of a float": (described(datatype="FP16", data=[1e6] * 6), None, "out of the range of FP16"),
    "NaN as an integer": (described(datatype="INT32", data=[float("nan")] * 6), None, "is no INT32"),
    "twice": (json.dumps(described())[:-1].encode() + b', "parameters": {}, "p\\u0061rameters": {}}', None, "'param"),
    "NaN in no JSON": (b'{"inputs": [NaN}', None, "JSON cannot be read"),
    "NaN in no request": (b'{"inputs": [NaN]}', None, "JSON cannot be read: Expected `object`"),
    "nested without end": (b'{"a": NaN, "inputs": ' + b"[" * 100_000, None, "JSON cannot be read"),
    "unknown datatype": (described(datatype="FP8"), None, "unknown datatype 'FP8'"),
    "negative size": (described(shape=[-1, 2, 3]), None, "dimension -1"),
    "absurd size": (described(shape=[2**31, 2**31]), None, "more than"),
    "blob too short": (described(data=None, parameters={"binary_data_size": 24}), "0x", "Inference-Header"),
    "size is no number": (described(data=None, parameters={"binary_data_size": "24"}), None, "a number of bytes"),
    "size is larger": (described(data=None, parameters={"binary_data_size": 24}), None, "0 bytes are left"),
    "length beyond": (described(), "999999", "the body has"),
    "length is no number": (described(), "1e3", "Inference-Header-Content-Length is '1e3'"),
    "flag is no flag": ({**described(), "parameters": {"binary_data_output": 1}}, None, "true or false"),
    "classification": (
        {**described(), "outputs": [{"name": "y", "parameters": {"classification": -1}}]},
        None,
        "classification is -1",
    ),
    "not base64": (described(datatype="BYTES", shape=[1], data=["$$$"]), None, "is not base64"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said(case: str) -> None:
    body, header, text = BAD[case]
    with pytest.raises(BadInput, match=text) as refused:
        read(body if isinstance(body, bytes) else json.dumps(body).encode(), header)
    assert "$." not in str(refused.value)


def test_a_body_may_be_its_one_input() -> None:
    request, binary = read_single("m", "", "", memoryview(VALUES.tobytes()), ("x", "FP32", (-1, 2, 3)))
    assert request.inputs[0].shape == (1, 2, 3)
    assert binary.of("y")
    with pytest.raises(BadInput, match="does not fit"):
        read_single("m", "", "", memoryview(b"12345"), ("x", "FP32", (-1, 2, 3)))
    with pytest.raises(BadInput, match="several open dimensions"):
        read_single("m", "", "", memoryview(b"1234"), ("x", "FP32", (-1, -1)))


def test_answers_are_json_or_blobs_as_asked() -> None:
    response = InferResponse(
        model="m",
        version="3",
        identity="7",
        outputs=(NamedTensor("y", "FP32", (1, 2, 3), VALUES), NamedTensor("t", "BYTES", (1, 1), [b"hi"])),
    )
    (plain,), length = write_response(response, Binary())
    assert length is None
    told = json.loads(bytes(plain))
    assert told["id"], told["model_version"] == ("7", "3")
    assert told["outputs"][0]["data"] == VALUES.reshape(-1).tolist()
    assert told["outputs"][1]["data"] == ["hi"]
    parts, length = write_response(response, Binary(default=True, outputs={"t": False}))
    body = b"".join(map(bytes, parts))
    head = json.loads(body[:length])
    assert head["outputs"][0]["parameters"] == {"binary_data_size": 24}
    np.testing.assert_array_equal(np.frombuffer(body[length:], np.float32), VALUES.reshape(-1))


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinity_goes_as_a_blob_only(value: float) -> None:
    """JSON has no number for it; null would be read as NaN."""
    found = np.array([[1, value]], np.float32)
    response = InferResponse(model="m", version="1", identity="", outputs=(NamedTensor("y", "FP32", (1, 2), found),))
    with pytest.raises(BadInput, match="output 'y' holds infinity.* binary"):
        write_response(response, Binary())
    parts, length = write_response(response, Binary(default=True))
    assert b"".join(map(bytes, parts))[length:] == found.tobytes()
