"""Requests and answers of the Open Inference Protocol over HTTP: JSON, with tensors as binary blobs behind it. Pure.

The binary extension: a header says how long the JSON is; the blobs of the inputs follow in order, each as long as its
`binary_data_size`, and nothing is left over. Facts from the protocol's and Triton's documentation.
"""

from __future__ import annotations

import base64
import binascii
from json import loads as json_of_python
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from parallel_infer.doors.http.json_text import check_once, readable
from parallel_infer.doors.service import InferRequest, InferResponse, NamedTensor, wanted
from parallel_infer.doors.tensors import (
    BYTES,
    array_of_blob,
    array_of_numbers,
    blob_of_texts,
    check_is_sent,
    elements,
    flattened,
    texts_of_blob,
)
from parallel_infer.errors import BadInput

LENGTH_HEADER = "Inference-Header-Content-Length"
_MOST_TENSORS = 64
_Name = Annotated[str, Meta(min_length=1, max_length=128)]


class _Input(msgspec.Struct, frozen=True):
    name: _Name
    datatype: str
    shape: Annotated[list[int], Meta(max_length=8)]
    parameters: dict[str, Any] = {}
    data: Any = None  # a list, flat or nested, or a single value


class _Output(msgspec.Struct, frozen=True):
    name: _Name
    parameters: dict[str, Any] = {}


class _Body(msgspec.Struct, frozen=True):
    inputs: Annotated[list[_Input], Meta(min_length=1, max_length=_MOST_TENSORS)]
    id: str = ""
    parameters: dict[str, Any] = {}
    outputs: Annotated[list[_Output], Meta(max_length=_MOST_TENSORS)] = []


class Binary(msgspec.Struct, frozen=True):
    """Which outputs go as blobs: those named in `outputs`, and by `default` those that a request does not name."""

    default: bool = False
    outputs: dict[str, bool] = {}

    def of(self, output: str) -> bool:
        """Whether this output goes as a blob."""
        return self.outputs.get(output, self.default)


_decode = msgspec.json.Decoder(_Body).decode
_encode = msgspec.json.Encoder().encode


def read_request(
    model: str, version: str, client: str, body: memoryview, json: memoryview
) -> tuple[InferRequest, Binary]:
    """A request from its body and the JSON in front of it. Raises BadInput for whatever is wrong with it."""
    parsed = _parsed(json)
    check_once(json)
    blobs = _Blobs(body[len(json) :])
    inputs = tuple(_tensor(tensor, blobs) for tensor in parsed.inputs)
    blobs.check_empty()
    default = _flag(parsed.parameters, "binary_data_output")
    named = {
        output.name: _flag(output.parameters, "binary_data")
        for output in parsed.outputs
        if "binary_data" in output.parameters
    }
    request = InferRequest(
        model=model,
        version=version,
        identity=parsed.id,
        parameters=parsed.parameters,
        inputs=inputs,
        outputs=tuple(wanted(output.name, output.parameters) for output in parsed.outputs),
        client=client,
    )
    return request, Binary(default, named)


def read_single(
    model: str, version: str, client: str, body: memoryview, port: tuple[str, str, tuple[int, ...]]
) -> tuple[InferRequest, Binary]:
    """A request whose whole body is its one input, as `LENGTH_HEADER: 0` says. `port` is the input's name, datatype
    and shape. Every output goes back as a blob. Raises BadInput where the body does not fit.
    """
    name, datatype, dims = port
    if datatype == BYTES:
        tensor = NamedTensor(name, BYTES, (1, 1), [body])
    else:
        tensor = NamedTensor(name, datatype, *_raw_shaped(body, name, datatype, dims))
    request = InferRequest(model=model, version=version, inputs=(tensor,), client=client)
    return request, Binary(default=True)


def _raw_shaped(body: memoryview, name: str, datatype: str, dims: tuple[int, ...]) -> tuple[tuple[int, ...], Any]:
    """The shape that a raw body has: at most one dimension may be open, and follows from the number of bytes."""
    if sum(size == -1 for size in dims) > 1:
        raise BadInput(f"input {name!r} has several open dimensions {list(dims)}; send its shape in JSON")
    fixed = 1
    for size in dims:
        fixed *= 1 if size == -1 else size
    item = array_of_blob(memoryview(b""), datatype, (0,), name).itemsize
    count, left = divmod(len(body), fixed * item) if fixed else (0, 1)
    if left or (count != 1 and -1 not in dims):
        raise BadInput(f"input {name!r} has {len(body)} bytes of data, which does not fit {datatype} {list(dims)}")
    shape = tuple(count if size == -1 else size for size in dims)
    return shape, array_of_blob(body, datatype, shape, name)


def write_response(response: InferResponse, binary: Binary) -> tuple[list[bytes | memoryview], int | None]:
    """The parts of a body, and the length of its JSON where blobs follow it (None: all is JSON)."""
    described: list[dict[str, Any]] = []
    blobs: list[bytes | memoryview] = []
    for output in response.outputs:
        entry: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
        if binary.of(output.name):
            blob = _blob(output)
            entry["parameters"] = {"binary_data_size": len(blob)}
            blobs.append(blob)
        else:
            entry["data"] = _plain(output)
        described.append(entry)
    head = {"id": response.identity} if response.identity else {}
    head |= {"model_name": response.model, "model_version": response.version}
    json = _encode({**head, "outputs": described})
    if not blobs:
        return [json], None
    return [json, *blobs], len(json)


def json_length(header: str | None, size: int) -> int:
    """How many bytes of a body of `size` bytes are JSON, by the value of `LENGTH_HEADER`. Raises BadInput."""
    if header is None:
        return size
    text = header.strip()
    if not (text.isascii() and text.isdigit()) or len(text) > 12 or int(text) > size:
        raise BadInput(f"{LENGTH_HEADER} is {header[:40]!r}; the body has {size} bytes")
    return int(text)


def _parsed(json: memoryview) -> _Body:
    try:
        try:
            return _decode(json)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError as error:
            return _with_nan(bytes(json), error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"the request's JSON cannot be read: {readable(error)}") from None


def _with_nan(json: bytes, error: msgspec.DecodeError) -> _Body:
    """The body where all that is wrong are NaN and Infinity, which JSON has not, but Python and perf_analyzer write.

    Raises `error` where something else is wrong, and msgspec.ValidationError where it is no request.
    """
    if b"NaN" not in json and b"Infinity" not in json:
        raise error
    try:
        found = json_of_python(json)
    except ValueError:
        raise error from None
    return msgspec.convert(found, _Body)


class _Blobs:
    """The bytes behind the JSON, taken from the front."""

    def __init__(self, data: memoryview) -> None:
        self._data = data

    def take(self, size: Any, name: str) -> memoryview:
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise BadInput(f"input {name!r}: binary_data_size is {size!r}; a number of bytes is needed")
        if size > len(self._data):
            raise BadInput(f"input {name!r}: binary_data_size is {size}, {len(self._data)} bytes are left in the body")
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def check_empty(self) -> None:
        if len(self._data):
            raise BadInput(f"{len(self._data)} bytes of the body belong to no input")


def _tensor(given: _Input, blobs: _Blobs) -> NamedTensor:
    shape = tuple(given.shape)
    check_is_sent(given.parameters, f"input {given.name!r}")
    if "binary_data_size" in given.parameters:
        if given.data is not None:
            raise BadInput(f"input {given.name!r} has both data and binary_data_size")
        blob = blobs.take(given.parameters["binary_data_size"], given.name)
        if given.datatype == BYTES:
            return NamedTensor(given.name, BYTES, shape, texts_of_blob(blob, shape, given.name))
        return NamedTensor(given.name, given.datatype, shape, array_of_blob(blob, given.datatype, shape, given.name))
    if given.data is None:
        raise BadInput(f"input {given.name!r} has no data")
    if given.datatype == BYTES:
        return NamedTensor(given.name, BYTES, shape, _texts(given.data, shape, given.name))
    numbers = array_of_numbers(given.data, given.datatype, shape, given.name)
    return NamedTensor(given.name, given.datatype, shape, numbers)


def _texts(data: Any, shape: tuple[int, ...], name: str) -> list[bytes]:
    """Elements of a BYTES tensor in JSON: base64, since pictures are no text."""
    texts = flattened(data)
    if len(texts) != elements(shape, name):
        raise BadInput(f"input {name!r} holds {len(texts)} elements; its shape {list(shape)} says otherwise")
    return [base64_bytes(text, f"input {name!r}") for text in texts]


def base64_bytes(text: Any, what: str) -> bytes:
    """Bytes of base64 text, with or without a data: prefix. Raises BadInput for anything else."""
    if not isinstance(text, str):
        raise BadInput(f"{what} is {type(text).__name__}; a picture in base64 is needed")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        data = _strict_base64(text)
    except (binascii.Error, ValueError):
        raise BadInput(f"{what} is not base64") from None
    if not data:
        raise BadInput(f"{what} is empty")
    return data


def _strict_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:  # it may have been broken into lines
        return base64.b64decode("".join(text.split()), validate=True)


def _flag(parameters: dict[str, Any], name: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise BadInput(f"parameter {name!r} is {value!r}; true or false is needed")
    return value


def _blob(output: NamedTensor) -> bytes | memoryview:
    if isinstance(output.data, list):
        return blob_of_texts(output.data)
    array = np.ascontiguousarray(output.data)
    return array.reshape(-1).view(np.uint8).data if array.size else b""


def _plain(output: NamedTensor) -> list[Any]:
    if isinstance(output.data, list):
        return [bytes(element).decode("utf-8", "replace") for element in output.data]
    if output.data.dtype.kind == "f" and bool(np.isinf(output.data).any()):
        raise BadInput(f"output {output.name!r} holds infinity, which JSON has no number for; ask for binary data")
    plain: list[Any] = output.data.reshape(-1).tolist()
    return plain
