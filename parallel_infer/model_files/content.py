"""What a model consists of: the graphs and tensors of its file, and the data files beside it that hold weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from parallel_infer.errors import ModelRejected
from parallel_infer.model_files.digest import digest_of


def graphs_of(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
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


def tensors_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """The fixed tensors of a graph: weights, and those in attributes of its nodes."""
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


def outside_tensors(model: onnx.ModelProto) -> Iterator[tuple[str, dict[str, str]]]:
    """Of each tensor that lies in a data file: the file's name as the model has it, and all that is said of it."""
    for graph in graphs_of(model):
        for tensor in tensors_of(graph):
            if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
                keys = {entry.key: entry.value for entry in tensor.external_data}
                yield keys.get("location", ""), keys


def data_files(path: Path) -> list[Path]:
    """The files beside a model that hold its weights; none where the file is no model, which is said elsewhere."""
    if not path.is_file():
        return []  # reading from a pipe or a device might never end
    try:
        names = {name for name, _ in outside_tensors(onnx.load(path, load_external_data=False))}
    except (DecodeError, OSError, ValueError):
        return []
    return [path.parent / name for name in sorted(names)]


def digest_of_model(model: str | Path | bytes) -> str:
    """The digest of a model whose data files are still to be looked up."""
    if isinstance(model, bytes):
        return hashlib.sha256(model).hexdigest()
    path = Path(model)
    try:
        parsed = onnx.load(path, load_external_data=False)
        return digest_of(path, {name for name, _ in outside_tensors(parsed)})
    except (DecodeError, OSError, ValueError) as error:
        raise ModelRejected(f"{path.name} cannot be read as ONNX") from error
