"""Which parts of a graph can be held in 8 bits, and which graphs cannot be quantized at all. Pure."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from parallel_infer.errors import ModelRejected

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_FEW_WEIGHTS = 256  # an operator of fewer is arithmetic of a box decoder, not a layer
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul")
_OLDEST_OPSET = 11


def check_graph(model: onnx.ModelProto) -> None:
    """Raises ModelRejected for a model that is quantized already, or too old."""
    found = {node.op_type for node in model.graph.node} & set(_QUANTIZED)
    if found:
        raise ModelRejected(f"the model is quantized already: it has {', '.join(sorted(found))}")
    opset = opset_of(model)
    if opset < _OLDEST_OPSET:
        raise ModelRejected(f"the model uses opset {opset}; quantizing needs {_OLDEST_OPSET} or newer: export it again")


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX' own operators; 0 where the model has none."""
    return next((int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def kept_in_float(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes that have to stay in float32. Raises ModelRejected where the graph has no layer at all.

    These are the nodes behind the last layer (box decoding, softmax, sigmoid), where boxes in pixels and scores from 0
    to 1 lie in one tensor, which no single scale fits; and nodes with infinite constants, which have no scale, together
    with those that read what they make.
    """
    layers = _layers(graph)
    if not layers:
        raise ModelRejected("nothing to quantize: the model has no convolution or matrix product with weights")
    body, endless = _upstream(graph, layers), _endless(graph)
    return [node.name for node in graph.node if node.name not in body or node.name in endless]


def check_scales(graph: onnx.GraphProto) -> None:
    """Raises ModelRejected for a quantized graph with a scale that is no positive number; it would answer nonsense."""
    names = {node.input[1] for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")}
    for tensor in graph.initializer:
        if tensor.name in names:
            scales = numpy_helper.to_array(tensor)
            if not np.isfinite(scales).all() or (scales <= 0).any():
                raise ModelRejected("some values inside the model have no finite range, so 8 bits cannot hold them")


def _layers(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    return [
        node
        for node in graph.node
        if node.op_type in _WEIGHTED and max((sizes.get(name, 0) for name in node.input), default=0) >= _FEW_WEIGHTS
    ]


def _upstream(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> set[str]:
    """Names of these nodes and of all whose outputs reach them."""
    makers = {name: node for node in graph.node for name in node.output}
    found: set[str] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node.name not in found:
            found.add(node.name)
            waiting += [makers[name] for name in node.input if name in makers]
    return found


def _endless(graph: onnx.GraphProto) -> set[str]:
    """Names of nodes with a constant that is not finite, such as a Pad with -inf, and of those that read from them."""
    constants = {tensor.name for tensor in graph.initializer if not _is_finite(tensor)}
    makers = [node for node in graph.node if constants & set(node.input)]
    made = {name for node in makers for name in node.output}
    return {node.name for node in graph.node if (constants | made) & set(node.input)}


def _is_finite(tensor: onnx.TensorProto) -> bool:
    if tensor.data_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16):
        return True
    return bool(np.isfinite(numpy_helper.to_array(tensor)).all())
