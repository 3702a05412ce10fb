"""Normalising inside the model: its picture input becomes uint8, and the graph does what preprocessing did.

Rows then hold pixels, a quarter of the size of floats. The nodes put in front compute what `Preprocessor` computes
for float rows, in the same arithmetic: Transpose, Cast, Sub and Div of float32. Colour order stays with preprocessing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_model, uses_external_data

from parallel_infer.errors import ModelRejected
from stages.preprocess import Preprocess

_LARGEST = 2**31 - 2**24  # bytes; Protobuf ends at 2 GiB
_TOO_LARGE = "the model with its weights is larger than one ONNX file can be, 2 GiB"
_OLDEST_OPSET = 7  # Sub and Div broadcast as NumPy does from here on
_AXES = {"nchw": (0, 2, 3, 1), "nhwc": (0, 1, 2, 3)}  # where N, H, W and C stand in the model's input
_TO_NCHW = (0, 3, 1, 2)


class Rewritten(NamedTuple):
    """The model with a uint8 [N, H, W, 3] input of the same name, whole: weights from beside the file are inside."""

    model: bytes


class Refused(NamedTuple):
    """The graph does not allow it; the model is to be used as it is."""

    reason: str


def with_uint8_input(path: str | Path, preprocess: Preprocess) -> Rewritten | Refused:
    """Rewrite the model at `path` so that its rows are uint8 [height, width, 3] in `preprocess.color` order.

    Height and width become those of `preprocess`; the batch dimension, all other inputs, the outputs and the metadata
    stay as they are. Raises ModelRejected where the file is not an ONNX model or its weights cannot be read.
    """
    path = Path(path)
    model = _parsed(path)
    reason = _obstacle(model, preprocess)
    if reason is not None:
        return Refused(reason)
    _inline_weights(model, path.parent)
    _rewrite(model.graph, preprocess)
    try:
        return Rewritten(model.SerializeToString())
    except (EncodeError, ValueError):
        return Refused(_TOO_LARGE)  # some weights did not declare their length


def _parsed(path: Path) -> ModelProto:
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise ModelRejected("the model file cannot be read as ONNX") from error
    if not model.graph.node:  # an empty file, and many another, is read as a model of nothing
        raise ModelRejected("the model file holds no graph")
    return model


def _obstacle(model: ModelProto, preprocess: Preprocess) -> str | None:
    """Why this cannot be done, in a sentence; None where it can."""
    graph, name = model.graph, preprocess.input
    value = next((value for value in graph.input if value.name == name), None)
    if value is None:
        return f"the graph has no input {name}"
    if any(tensor.name == name for tensor in graph.initializer):
        return f"the input {name} has a default value"
    if any(output.name == name for output in graph.output):
        return f"the input {name} is also an output"
    if not any(name in node.input for part in _graphs(graph) for node in part.node):
        return f"nothing in the graph reads the input {name}"
    if (opset := _opset(model)) < _OLDEST_OPSET:
        return f"the graph uses operator set {opset}; {_OLDEST_OPSET} or later is needed"
    if _whole_size(model) > _LARGEST:
        return _TOO_LARGE
    return _unfit(value, preprocess)


def _unfit(value: ValueInfoProto, preprocess: Preprocess) -> str | None:
    """Why dtype or shape of the input do not allow it."""
    tensor = value.type.tensor_type
    if tensor.elem_type not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        kind = TensorProto.DataType.Name(tensor.elem_type).lower()
        return f"the input {value.name} is {kind}, neither float nor float16"
    if not tensor.HasField("shape") or len(tensor.shape.dim) != 4:
        return f"the input {value.name} does not declare four dimensions"
    wanted = (preprocess.height, preprocess.width, 3)
    declared = [tensor.shape.dim[axis] for axis in _AXES[preprocess.layout][1:]]
    if any(dim.HasField("dim_value") and dim.dim_value != size for dim, size in zip(declared, wanted, strict=True)):
        found = [dim.dim_value or dim.dim_param or "?" for dim in tensor.shape.dim]
        return f"the input {value.name} is {found}, not {preprocess.layout.upper()} with H, W, C = {list(wanted)}"
    return None


def _opset(model: ModelProto) -> int:
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def _whole_size(model: ModelProto) -> int:
    outside = [tensor for part in _graphs(model.graph) for tensor in part.initializer if uses_external_data(tensor)]
    lengths = [entry.value for tensor in outside for entry in tensor.external_data if entry.key == "length"]
    return int(model.ByteSize()) + sum(int(length) for length in lengths if length.isdigit())


def _inline_weights(model: ModelProto, folder: Path) -> None:
    try:
        load_external_data_for_model(model, str(folder))
    except (onnx.checker.ValidationError, OSError, ValueError) as error:
        raise ModelRejected("the weights beside the model file cannot be read") from error


def _rewrite(graph: GraphProto, preprocess: Preprocess) -> None:
    value = next(value for value in graph.input if value.name == preprocess.input)
    names = _Names(graph, preprocess.input)
    nodes = list(_nodes(names, value.type.tensor_type.elem_type, preprocess))
    _rename(graph, preprocess.input, names.last)
    for node in reversed(nodes):
        graph.node.insert(0, node)
    _declare(value, preprocess)


class _Names:
    """Names that are free in a graph. `last` is the most recent; at first the graph's own input."""

    def __init__(self, graph: GraphProto, first: str) -> None:
        self._taken = set(_names(graph))
        self._stem = first
        self.last = first

    def next(self, what: str) -> str:
        name = f"{self._stem}/{what}"
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def chain(self, operator: str, *others: str, **attributes: Any) -> NodeProto:
        """A node from `last`, and from `others`, to a new `last`."""
        output = self.next(operator.lower())
        node = helper.make_node(operator, [self.last, *others], [output], name=output, **attributes)
        self.last = output
        return node


def _nodes(names: _Names, kind: int, preprocess: Preprocess) -> Iterator[NodeProto]:
    """From uint8 [N, H, W, 3] to what the model took before."""
    if preprocess.layout == "nchw":
        # First the transposition, then the cast, because bytes are moved faster than floats.
        yield names.chain("Transpose", perm=_TO_NCHW)
    yield names.chain("Cast", to=TensorProto.FLOAT)
    shape = (3, 1, 1) if preprocess.layout == "nchw" else (3,)
    for operator, values, neutral in (("Sub", preprocess.mean, 0.0), ("Div", preprocess.std, 1.0)):
        if set(values) != {neutral}:
            constant = names.next("mean" if operator == "Sub" else "std")
            tensor = numpy_helper.from_array(np.array(values, np.float32).reshape(shape))
            yield helper.make_node("Constant", [], [constant], name=constant, value=tensor)
            yield names.chain(operator, constant)
    if kind != TensorProto.FLOAT:
        yield names.chain("Cast", to=kind)


def _declare(value: ValueInfoProto, preprocess: Preprocess) -> None:
    tensor = value.type.tensor_type
    batch = tensor.shape.dim[0]
    sizes = (preprocess.height, preprocess.width, 3)
    dims = [type(batch).FromString(batch.SerializeToString()), *(type(batch)(dim_value=size) for size in sizes)]
    tensor.elem_type = TensorProto.UINT8
    del tensor.shape.dim[:]
    tensor.shape.dim.extend(dims)


def _rename(graph: GraphProto, old: str, new: str) -> None:
    """Let every node that reads `old` read `new`, also in subgraphs, which see the names around them."""
    for part in _graphs(graph):
        for node in part.node:
            for index, name in enumerate(node.input):
                if name == old:
                    node.input[index] = new


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and all graphs within its nodes. ONNX is in SSA form: no name inside hides one outside."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for part in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(part)


def _names(graph: GraphProto) -> Iterator[str]:
    for part in _graphs(graph):
        for values in (part.input, part.output, part.value_info, part.initializer):
            yield from (value.name for value in values)
        for node in part.node:
            yield node.name
            yield from (*node.input, *node.output)
