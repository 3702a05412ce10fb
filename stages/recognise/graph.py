"""The model file itself, read with care: an unknown file is untrusted, and so is whatever it refers to."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO

import onnx
from google.protobuf.message import DecodeError
from msgspec import Struct

from parallel_infer.errors import ModelRejected
from parallel_infer.model_files.content import graphs_of, outside_tensors
from stages.recognise.chains import Scaling, last_operators, scaling
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
    operators: dict[str, str]  # that compute the outputs
    scaled: dict[str, Scaling]  # what the graph does first to an input, where it rescales it


def read_graph(path: Path) -> Graph:
    """Parse the file and check all that it refers to; weights are not loaded from elsewhere.

    Raises ModelRejected for anything that is not a whole ONNX model, or whose external data is missing, lies outside
    the model's folder, or is a link.
    """
    model = parse_model(read_model(path), path.name)
    data_files(model, path.parent)
    initial = {tensor.name for tensor in model.graph.initializer}
    return Graph(
        file=path.name,
        properties={entry.key: entry.value for entry in model.metadata_props},
        unranked=frozenset(
            value.name
            for value in model.graph.input
            if value.name not in initial and not value.type.tensor_type.HasField("shape")
        ),
        value_shaped=any(node.op_type in VALUE_SHAPED for graph in graphs_of(model) for node in graph.node),
        variable=variable_outputs(model),
        operators=last_operators(model.graph),
        scaled={
            value.name: found
            for value in model.graph.input
            if value.name not in initial and (found := scaling(model.graph, value.name)) is not None
        },
    )


def read_model(path: Path) -> bytes:
    """The file, whole. Raises ModelRejected, also where somebody writes to it meanwhile."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe may never be written to, a device never end
            raise ModelRejected(f"{path.name} is {'a folder' if path.is_dir() else 'no file'}; expected an ONNX file")
        with path.open("rb") as file:
            before = written_at(file)
            content = file.read()
            if written_at(file) != before:
                raise ModelRejected(f"{path.name} is being written to; load it when it is whole")
    except OSError as error:
        raise ModelRejected(f"{path.name}: cannot be read ({error.strerror}); expected an ONNX file") from error
    return content


def written_at(file: IO[bytes]) -> tuple[int, ...]:
    """Changes with every write to an open file."""
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def parse_model(content: bytes, name: str) -> onnx.ModelProto:
    """The model in a file's content. Raises ModelRejected for anything that is not a whole ONNX model."""
    if not content:
        raise ModelRejected(f"{name} is empty; expected an ONNX model")
    for offset, magic, what in _OTHER_FORMATS:
        if content[offset : offset + len(magic)] == magic:
            raise ModelRejected(f"{name} is {what}")
    try:
        model = onnx.load_model_from_string(content)
        whole = model.HasField("graph") and len(model.graph.node) + len(model.graph.output) > 0
    except (DecodeError, UnicodeDecodeError, ValueError) as error:
        raise ModelRejected(f"{name} {_damage(content)}; expected an ONNX model") from error
    if not whole:
        raise ModelRejected(f"{name} holds no graph: it is not an ONNX model, or was cut short")
    return model


def _damage(content: bytes) -> str:
    """ONNX files begin with field 1, the IR version, as a small number: 08 0x."""
    if content[0] == 0x08 and len(content) > 1 and content[1] < 0x20:
        return f"was cut short or is damaged ({len(content)} bytes)"
    return "is not an ONNX file"


def data_files(model: onnx.ModelProto, folder: Path) -> dict[str, int]:
    """The data files of a model in `folder`, by the names it has for them, and their bytes.

    Raises ModelRejected where one is missing, too short, a link, or lies outside the folder.
    """
    checked: dict[str, int] = {}
    for location, keys in outside_tensors(model):
        if location not in checked:
            checked[location] = _external_size(location, folder)
        _check_span(keys, checked[location], location)
    return checked


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
