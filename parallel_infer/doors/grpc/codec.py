"""Requests and answers of the Open Inference Protocol as gRPC messages. Pure.

Tensors come as raw bytes beside the inputs or as typed contents within them, never both; they go as raw bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from parallel_infer.doors.grpc.messages import message
from parallel_infer.doors.service import InferRequest, InferResponse, NamedTensor, wanted
from parallel_infer.doors.tensors import (
    BYTES,
    array_of_blob,
    array_of_numbers,
    blob_of_texts,
    check_is_sent,
    dtype_of,
    elements,
    texts_of_blob,
)
from parallel_infer.errors import BadInput

_CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
_FIELDS = frozenset(_CONTENTS.values())
_NUMBER = 40  # bytes of a number and its place in a list
_MOST_TENSORS = 64
_Response = message("inference.ModelInferResponse")


def read_request(request: Any, client: str) -> InferRequest:
    """A ModelInferRequest. Raises BadInput for whatever is wrong with it."""
    if not 1 <= len(request.inputs) <= _MOST_TENSORS:
        raise BadInput(f"the request has {len(request.inputs)} inputs; 1 to {_MOST_TENSORS} are read")
    raw = request.raw_input_contents
    for tensor in request.inputs:
        check_is_sent(tensor.parameters, f"input {tensor.name!r}")
    if raw and len(raw) != len(request.inputs):
        raise BadInput(f"there are {len(raw)} raw_input_contents for {len(request.inputs)} inputs")
    inputs = tuple(
        _tensor(tensor, memoryview(raw[index]) if raw else None) for index, tensor in enumerate(request.inputs)
    )
    return InferRequest(
        model=request.model_name,
        version=request.model_version,
        identity=request.id,
        parameters=parameters_of(request.parameters),
        inputs=inputs,
        outputs=tuple(wanted(output.name, parameters_of(output.parameters)) for output in request.outputs),
        client=client,
    )


def typed_weight(request: Any) -> int:
    """Bytes that a ModelInferRequest's typed contents take as Python's numbers, beside the message."""
    lengths = (
        len(getattr(tensor.contents, field))
        for tensor in request.inputs
        if tensor.HasField("contents")
        for field in _FIELDS
    )
    return _NUMBER * sum(lengths)


def parameters_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """InferParameters as plain values."""
    found = {}
    for name, value in given.items():
        chosen = value.WhichOneof("parameter_choice")
        if chosen is not None:
            found[name] = getattr(value, chosen)
    return found


def write_response(response: InferResponse) -> Any:
    """A ModelInferResponse with raw contents."""
    answer = _Response(model_name=response.model, model_version=response.version, id=response.identity)
    for output in response.outputs:
        answer.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
        answer.raw_output_contents.append(_bytes(output))
    return answer


def _bytes(output: NamedTensor) -> bytes:
    return blob_of_texts(output.data) if isinstance(output.data, list) else np.ascontiguousarray(output.data).tobytes()


def _tensor(given: Any, raw: memoryview | None) -> NamedTensor:
    shape, name, datatype = tuple(given.shape), given.name, given.datatype
    if raw is None:
        return NamedTensor(name, datatype, shape, _typed(given, shape))
    if given.HasField("contents"):
        raise BadInput(f"input {name!r} has contents beside raw_input_contents; one of them is read")
    if datatype == BYTES:
        return NamedTensor(name, BYTES, shape, texts_of_blob(raw, shape, name))
    return NamedTensor(name, datatype, shape, array_of_blob(raw, datatype, shape, name))


def _typed(given: Any, shape: tuple[int, ...]) -> Any:
    if given.datatype != BYTES:
        dtype_of(given.datatype, given.name)
    field = _CONTENTS.get(given.datatype)
    if field is None:
        raise BadInput(f"input {given.name!r} of datatype {given.datatype} must come in raw_input_contents")
    values = getattr(given.contents, field)
    wanted = elements(shape, given.name)
    if len(values) != wanted:
        raise BadInput(f"input {given.name!r} has {len(values)} {field}; its shape {list(shape)} says {wanted}")
    if given.datatype == BYTES:
        return list(values)
    if given.datatype in ("FP32", "FP64", "INT32", "INT64", "UINT32", "UINT64", "BOOL"):
        return np.array(values, dtype_of(given.datatype, given.name)).reshape(shape)
    return array_of_numbers(list(values), given.datatype, shape, given.name)  # these may be out of the type's range
