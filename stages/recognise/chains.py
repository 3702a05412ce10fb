"""What the first and the last operators of a graph do: whether it rescales its picture, and what its scores are."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

Doubles = npt.NDArray[np.float64]

_THROUGH = frozenset(("Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Dropout"))
_MOST_STEPS = 16


class Scaling(NamedTuple):
    """A graph begins with y = factor x x + offset; of the channels, those furthest from 0."""

    factor: float
    offset: float

    @property
    def takes_pixels(self) -> bool:
        """Whether it is pixels of 0..255 that this brings into a network's range, and not fractions of 0..1."""
        return abs(self.factor) * 255 <= 10 or (abs(self.factor) <= 1 and abs(self.offset) > 10)


def last_operators(graph: onnx.GraphProto) -> dict[str, str]:
    """By output: the operator that computes it, past those that move numbers alone."""
    producers = {name: node for node in graph.node for name in node.output}
    found = {}
    for value in graph.output:
        node = producers.get(value.name)
        for _ in range(_MOST_STEPS):
            if node is None or node.op_type not in _THROUGH or not node.input:
                break
            node = producers.get(node.input[0])
        if node is not None:
            found[value.name] = node.op_type
    return found


def scaling(graph: onnx.GraphProto, name: str) -> Scaling | None:
    """What the graph does to its input before anything else looks at it; None where it does nothing."""
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for given in node.input:
            readers[given].append(node)
    constants = _constants(graph)
    factor, offset = np.ones(1), np.zeros(1)
    scaled = False
    for _ in range(_MOST_STEPS):
        if len(readers[name]) != 1:
            break
        node = readers[name][0]
        if node.op_type in ("Cast", "Identity", "Transpose"):
            name = node.output[0]
            continue
        step = _step(node, name, constants)
        if step is None:
            break
        factor, offset, scaled = factor * step[0], offset * step[0] + step[1], True
        name = node.output[0]
    if not scaled:
        return None
    return Scaling(float(factor[np.argmax(np.abs(factor))]), float(offset[np.argmax(np.abs(offset))]))


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            constants[node.output[0]] = node.attribute[0].t
    return constants


def _step(node: onnx.NodeProto, name: str, constants: dict[str, onnx.TensorProto]) -> tuple[Doubles, Doubles] | None:
    """Factor and offset of a node, by channel; None where it is no such step."""
    if node.op_type == "BatchNormalization" and node.input[0] == name:
        return _normalisation(node, constants)
    if node.op_type not in ("Add", "Sub", "Mul", "Div") or len(node.input) != 2:
        return None
    other = node.input[1] if node.input[0] == name else node.input[0]
    value = _small(constants.get(other))
    if value is None or other == name:
        return None
    is_first = node.input[0] == name
    one, zero = np.ones(1), np.zeros(1)
    match node.op_type:
        case "Add":
            return one, value
        case "Mul":
            return value, zero
        case "Sub":
            return (one, -value) if is_first else (-one, value)
        case _:
            return (1.0 / value, zero) if is_first and (value != 0).all() else None


def _normalisation(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> tuple[Doubles, Doubles] | None:
    gamma, beta, mean, variance = (_small(constants.get(given)) for given in node.input[1:5])
    if gamma is None or beta is None or mean is None or variance is None:
        return None
    epsilon = next((attribute.f for attribute in node.attribute if attribute.name == "epsilon"), 1e-5)
    factor = gamma / np.sqrt(variance + epsilon)
    return factor, beta - mean * factor


def _small(tensor: onnx.TensorProto | None) -> Doubles | None:
    """A number, or one for each of three channels; None for anything else, and for weights that lie elsewhere."""
    if tensor is None or tensor.external_data or int(np.prod(tensor.dims, dtype=np.int64)) not in (1, 3):
        return None
    value = numpy_helper.to_array(tensor)
    return value.astype(np.float64).reshape(-1) if value.dtype.kind in "fiu" else None
