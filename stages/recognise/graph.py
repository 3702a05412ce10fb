"""The model file itself, read with care: an unknown file is untrusted, and so is whatever it refers to."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from msgspec import Struct

from parallel_infer.errors import ModelRejected
from stages.recognise.variable import VALUE_SHAPED, variable_outputs

_OTHER_FORMATS = (
    (0, b"PK\x03\x04", "a zip file (a PyTorch checkpoint?); export it to ONNX first"),
    (0, b"\x80\x02", "a Python pickle (a PyTorch checkpoint?); export it to ONNX first"),
    (4, b"TFL3", "a TensorFlow Lite model; convert it to ONNX first"),
    (4, b"ORTM", "ONNX Runtime's own .ort format; give the .onnx file it was made from"),
    (0, b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with `git lfs pull`"),
    (0, b"<", "a web page or XML; download the file itself"),
)


class Graph(Struct, frozen=True, kw_only=True):
    """What the file says before anything of it is run."""

    file: str  # name without folders
    properties: dict[str, str]
    unranked: frozenset[str]  # inputs that do not even say how many dimensions they have
    value_shaped: bool  # some operator's output shape depends on the picture
    variable: frozenset[str]  # outputs whose shapes may do so


def read_graph(path: Path) -> Graph:
    """Parse the file and check all that it refers to; weights are not loaded from elsewhere.

    Raises ModelRejected for anything that is not a whole ONNX model, or whose external data is missing, lies outside
    the model's folder, or is a link.
    """
    model = _parse(path)
    graphs = list(_graphs(model))
    _check_external_data(model, graphs, path.parent)
    initial = {tensor.name for tensor in model.graph.initializer}
    return Graph(
        file=path.name,
        properties={entry.key: entry.value for entry in model.metadata_props},
        unranked=frozenset(
            value.name
            for value in model.graph.input
            if value.name not in initial and not value.type.tensor_type.HasField("shape")
        ),
        value_shaped=any(node.op_type in VALUE_SHAPED for graph in graphs for node in graph.node),
        variable=variable_outputs(model),
    )


def _parse(path: Path) -> onnx.ModelProto:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelRejected(f"{path.name}: cannot be read ({error.strerror}); expected an ONNX file") from error
    if not content:
        raise ModelRejected(f"{path.name} is empty; expected an ONNX model")
    for offset, magic, what in _OTHER_FORMATS:
        if content[offset : offset + len(magic)] == magic:
            raise ModelRejected(f"{path.name} is {what}")
    try:
        model = onnx.load_model_from_string(content)
        whole = model.HasField("graph") and len(model.graph.node) + len(model.graph.output) > 0
    except (DecodeError, UnicodeDecodeError, ValueError) as error:
        raise ModelRejected(f"{path.name} {_damage(content)}; expected an ONNX model") from error
    if not whole:
        raise ModelRejected(f"{path.name} holds no graph: it is not an ONNX model, or was cut short")
    return model


def _damage(content: bytes) -> str:
    """ONNX files begin with field 1, the IR version, as a small number: 08 0x."""
    if content[0] == 0x08 and len(content) > 1 and content[1] < 0x20:
        return f"was cut short or is damaged ({len(content)} bytes)"
    return "is not an ONNX file"


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The main graph and all graphs nested in nodes; bodies of model functions hold nodes alone."""
    waiting = [model.graph]
    waiting.extend(onnx.GraphProto(node=function.node) for function in model.functions)
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting.extend(attribute.graphs)
                if attribute.HasField("g"):
                    waiting.append(attribute.g)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        for attribute in node.attribute:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t
            for sparse in (*attribute.sparse_tensors, attribute.sparse_tensor):
                yield sparse.values
                yield sparse.indices


def _check_external_data(model: onnx.ModelProto, graphs: list[onnx.GraphProto], folder: Path) -> None:
    checked: dict[str, int] = {}
    for graph in graphs:
        for tensor in _tensors(graph):
            if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
                keys = {entry.key: entry.value for entry in tensor.external_data}
                location = keys.get("location", "")
                if location not in checked:
                    checked[location] = _external_size(location, folder)
                _check_span(keys, checked[location], location)


def _external_size(location: str, folder: Path) -> int:
    """Bytes of an external data file that is safe to open: a plain file of its own below the model's folder."""
    relative = Path(location)
    outside = relative.is_absolute() or ".." in relative.parts or "\\" in location or "\0" in location
    if not location or outside:
        raise ModelRejected(f"external data {location!r} lies outside the model's folder; put it next to the model")
    place = folder
    for part in relative.parts:
        place = place / part
        try:
            status = place.lstat()
        except OSError as error:
            raise ModelRejected(
                f"external data {location!r} is missing; copy it next to the model, under the same name"
            ) from error
        if stat.S_ISLNK(status.st_mode):
            raise ModelRejected(
                f"external data {location!r} is a symbolic link; expected a plain file, copy it instead"
            )
    if not stat.S_ISREG(status.st_mode):
        raise ModelRejected(f"external data {location!r} is not a plain file")
    if status.st_nlink > 1:
        raise ModelRejected(f"external data {location!r} is a hard link to another file; copy it instead")
    return status.st_size


def _check_span(keys: dict[str, str], size: int, location: str) -> None:
    try:
        offset, length = int(keys.get("offset", "0")), int(keys.get("length", "0"))
    except ValueError as error:
        raise ModelRejected(f"external data {location!r}: offset and length are not numbers") from error
    if offset < 0 or length < 0 or offset + length > size:
        raise ModelRejected(
            f"external data {location!r} was cut short: it has {size} bytes, the model expects {offset + length}"
        )
