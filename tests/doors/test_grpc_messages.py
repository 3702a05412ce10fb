"""The gRPC door's messages: made from field numbers, and the same as those that Triton's client generates."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("grpc", reason="the gRPC door needs the extra grpc")

from parallel_infer.doors.grpc import messages
from parallel_infer.doors.grpc.codec import read_request, write_response
from parallel_infer.doors.service import InferResponse, NamedTensor
from parallel_infer.errors import BadInput

Request = messages.message("inference.ModelInferRequest")


def request(**changes: object) -> object:
    made = Request(model_name="m", id="7")
    made.parameters["timeout"].int64_param = 5
    tensor = made.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    tensor.contents.fp32_contents.extend([1.0, 2.0])
    for name, value in changes.items():
        setattr(tensor, name, value)
    return made


def test_a_request_survives_the_wire() -> None:
    read = read_request(Request.FromString(request().SerializeToString()), "me")
    assert (read.model, read.identity, read.parameters, read.client) == ("m", "7", {"timeout": 5}, "me")
    np.testing.assert_array_equal(read.inputs[0].data, [[1.0, 2.0]])


def test_raw_contents_stand_for_all_inputs_or_none() -> None:
    made = request()
    made.raw_input_contents.append(np.ones(2, np.float32).tobytes())
    with pytest.raises(BadInput, match="contents beside raw_input_contents"):
        read_request(made, "")
    made.inputs[0].ClearField("contents")
    np.testing.assert_array_equal(read_request(made, "").inputs[0].data, [[1.0, 1.0]])
    made.raw_input_contents.append(b"")
    with pytest.raises(BadInput, match="2 raw_input_contents for 1 inputs"):
        read_request(made, "")


@pytest.mark.parametrize(
    ("changes", "text"),
    [({"datatype": "FP8"}, "unknown datatype"), ({"datatype": "FP16"}, "raw_input_contents"), ({"name": "y" * 9}, "")],
)
def test_odd_requests_are_named(changes: dict[str, str], text: str) -> None:
    if text:
        with pytest.raises(BadInput, match=text):
            read_request(request(**changes), "")
    else:
        assert read_request(request(**changes), "").inputs[0].name == "y" * 9


def test_answers_go_as_raw_bytes() -> None:
    values = np.arange(4, dtype=np.float32).reshape(2, 2)
    answer = write_response(
        InferResponse(model="m", version="1", identity="7", outputs=(NamedTensor("y", "FP32", (2, 2), values),))
    )
    assert answer.raw_output_contents == [values.tobytes()]
    assert list(answer.outputs[0].shape) == [2, 2]


def test_every_field_is_that_of_the_published_protocol() -> None:
    theirs = pytest.importorskip("tritonclient.grpc.service_pb2", reason="tritonclient is not installed")
    from tritonclient.grpc import model_config_pb2

    compared = 0
    for name, ours in messages.every_message("inference").items():
        other = getattr(theirs, name, None) or getattr(model_config_pb2, name, None)
        if other is None:  # they nest some messages, whose names are no part of the wire
            continue
        known = {field.name: field for field in other.DESCRIPTOR.fields}
        for field in ours.fields:
            assert (field.number, field.type, field.label) == (
                known[field.name].number,
                known[field.name].type,
                known[field.name].label,
            ), f"{name}.{field.name}"
            compared += 1
    assert compared > 60
