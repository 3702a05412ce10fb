"""Graphs with the layers of ResNet-50 and YOLOv8n and random weights: the arithmetic of the real ones, no licence.

    python benchmarks/peers/graphs.py FOLDER

Layer by layer as torchvision exports ResNet-50 (arXiv:1512.03385, stride in the 3x3) and Ultralytics YOLOv8n, batch
normalisation folded into the convolutions. `count_macs` counts what one picture costs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.peers.pictures import frames

Floats = npt.NDArray[np.float32]

_SILU_GAIN = 1 / 0.356  # 1 / E[silu(x)^2] for a standard normal x
_RELU_GAIN = 2.0
_CONFIDENCE = 0.25  # the default confidence of detectors
_PASSING = 0.01  # share of anchors above it: about as many as in a crowded street


class Graph:
    """A graph in the making; every method adds layers and gives the name of their output."""

    def __init__(self, size: int, gain: float) -> None:
        self.size = size
        self._gain = gain
        self.random = np.random.default_rng(0)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._channels = {"images": 3}

    def node(self, kind: str, inputs: Sequence[str], channels: int = 0, **attributes: object) -> str:
        name = f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))  # type: ignore[arg-type]
        self._channels[name] = channels or self._channels.get(inputs[0], 0)
        return name

    def constant(self, values: npt.NDArray[np.float32] | npt.NDArray[np.int64], name: str = "") -> str:
        name = name or f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(values, name))
        return name

    def conv(self, x: str, channels: int, kernel: int, stride: int = 1, scale: float = 1.0, bias: str = "") -> str:
        """A convolution, padded to keep the size; weights of He's variance times `scale` squared."""
        taken = self._channels[x]
        spread = scale * math.sqrt(self._gain / (taken * kernel * kernel))
        weights = self.random.normal(0, spread, (channels, taken, kernel, kernel)).astype(np.float32)
        inputs = [x, self.constant(weights), bias or self.constant(np.zeros(channels, np.float32))]
        return self.node(
            "Conv", inputs, channels, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[kernel // 2] * 4
        )

    def silu(self, x: str, channels: int, kernel: int, stride: int = 1) -> str:
        """Convolution and SiLU: Ultralytics' `Conv`."""
        x = self.conv(x, channels, kernel, stride)
        return self.node("Mul", [x, self.node("Sigmoid", [x])])

    def concat(self, inputs: Sequence[str]) -> str:
        return self.node("Concat", inputs, sum(self._channels[name] for name in inputs), axis=1)

    def model(self, output: str, name: str, shape: Sequence[int | str], metadata: dict[str, str]) -> onnx.ModelProto:
        self.node("Identity", [output])
        self._nodes[-1].output[0] = name
        given = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, self.size, self.size])
        answer = helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        graph = helper.make_graph(self._nodes, "random weights", [given], [answer], self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model, full_check=True)
        return model


def resnet50(size: int = 224) -> onnx.ModelProto:
    """Probabilities [N, 1000] of pictures [N, 3, 224, 224]."""
    graph = Graph(size, _RELU_GAIN)
    x = graph.node("Relu", [graph.conv("images", 64, 7, 2)])
    x = graph.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for level, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            x = _bottleneck(graph, x, 64 << level, stride=2 if level and not block else 1, widens=not block)
    x = graph.node("Flatten", [graph.node("GlobalAveragePool", [x])])
    weights = graph.random.normal(0, 0.02, (1000, 2048)).astype(np.float32)
    x = graph.node("Gemm", [x, graph.constant(weights), graph.constant(np.zeros(1000, np.float32))], 1000, transB=1)
    metadata = {
        "task": "classify",
        "names": repr({number: f"class {number}" for number in range(1000)}),
        "imgsz": repr([size, size]),
        "resize": "crop",
        "crop_fraction": "0.875",
        "filter": "bilinear",
        "mean": "[123.675, 116.28, 103.53]",
        "std": "[58.395, 57.12, 57.375]",
        "description": "ResNet-50 with random weights",
    }
    return graph.model(graph.node("Softmax", [x], axis=1), "probabilities", ["batch", 1000], metadata)


def _bottleneck(graph: Graph, x: str, width: int, stride: int, widens: bool) -> str:
    inner = graph.node("Relu", [graph.conv(x, width, 1)])
    inner = graph.node("Relu", [graph.conv(inner, width, 3, stride)])
    inner = graph.conv(inner, width * 4, 1, scale=0.5)  # else sixteen sums would let the numbers grow
    shortcut = graph.conv(x, width * 4, 1, stride, scale=math.sqrt(0.5)) if widens else x
    return graph.node("Relu", [graph.node("Add", [inner, shortcut])])


def yolov8n(size: int = 640) -> onnx.ModelProto:
    """[N, 84, 8400] of pictures [N, 3, 640, 640], as Ultralytics exports it: cx, cy, w, h in pixels, then scores.

    The scores are scaled and shifted such that one anchor in a hundred passes the default
    confidence on the shipped photographs.
    """
    logits = _logits(_yolov8n(size, Head(1.0, 0.0)))
    scale = 1 / float(logits.std())
    best = float(np.quantile(logits.max(axis=0), 1 - _PASSING))
    return _yolov8n(size, Head(scale, math.log(_CONFIDENCE / (1 - _CONFIDENCE)) - scale * best))


class Head(NamedTuple):
    """How random scores are made plausible."""

    scale: float  # of the last weights before the scores
    bias: float


def _logits(model: onnx.ModelProto) -> Floats:
    """What the last sigmoid gets, [classes, anchors of all pictures], for the shipped photographs."""
    size = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    pictures = cv2.dnn.blobFromImages(frames(), 1 / 255, (size, size), swapRB=True)
    last = [node for node in model.graph.node if node.op_type == "Sigmoid"][-1]
    model.graph.output.append(helper.make_tensor_value_info(last.input[0], TensorProto.FLOAT, None))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (output,) = session.run([last.input[0]], {"images": pictures})
    return np.concatenate(np.asarray(output, np.float32), axis=1)


def _yolov8n(size: int, head: Head) -> onnx.ModelProto:
    graph = Graph(size, _SILU_GAIN)
    x = graph.silu(graph.silu("images", 16, 3, 2), 32, 3, 2)
    x = graph.silu(_c2f(graph, x, 32, 1, shortcut=True), 64, 3, 2)
    eighth = _c2f(graph, x, 64, 2, shortcut=True)
    sixteenth = _c2f(graph, graph.silu(eighth, 128, 3, 2), 128, 2, shortcut=True)
    deep = _sppf(graph, _c2f(graph, graph.silu(sixteenth, 256, 3, 2), 256, 1, shortcut=True), 256)
    middle = _c2f(graph, graph.concat([_doubled(graph, deep), sixteenth]), 128, 1, shortcut=False)
    fine = _c2f(graph, graph.concat([_doubled(graph, middle), eighth]), 64, 1, shortcut=False)
    middle = _c2f(graph, graph.concat([graph.silu(fine, 64, 3, 2), middle]), 128, 1, shortcut=False)
    coarse = _c2f(graph, graph.concat([graph.silu(middle, 128, 3, 2), deep]), 256, 1, shortcut=False)
    return _detect(graph, [fine, middle, coarse], head)


def _c2f(graph: Graph, x: str, channels: int, depth: int, shortcut: bool) -> str:
    x = graph.silu(x, channels, 1)
    half = channels // 2
    parts = [_channels(graph, x, 0, half), _channels(graph, x, half, channels)]
    for _ in range(depth):
        inner = graph.silu(graph.silu(parts[-1], half, 3), half, 3)
        parts.append(graph.node("Add", [inner, parts[-1]]) if shortcut else inner)
    return graph.silu(graph.concat(parts), channels, 1)


def _channels(graph: Graph, x: str, start: int, end: int) -> str:
    """Those channels of `x`."""
    bounds = [graph.constant(np.array([value], np.int64)) for value in (start, end, 1)]
    return graph.node("Slice", [x, *bounds], end - start)


def _sppf(graph: Graph, x: str, channels: int) -> str:
    parts = [graph.silu(x, channels // 2, 1)]
    for _ in range(3):
        parts.append(graph.node("MaxPool", [parts[-1]], kernel_shape=[5, 5], pads=[2, 2, 2, 2]))
    return graph.silu(graph.concat(parts), channels, 1)


def _doubled(graph: Graph, x: str) -> str:
    scales = graph.constant(np.array([1, 1, 2, 2], np.float32))
    return graph.node("Resize", [x, "", scales], mode="nearest", coordinate_transformation_mode="asymmetric")


def _detect(graph: Graph, levels: Sequence[str], head: Head) -> onnx.ModelProto:
    shifts = graph.constant(np.full(80, head.bias, np.float32), "score_bias")
    shape = graph.constant(np.array([0, 144, -1], np.int64))
    heads = []
    for level in levels:
        boxes = graph.conv(graph.silu(graph.silu(level, 64, 3), 64, 3), 64, 1)
        scores = graph.conv(graph.silu(graph.silu(level, 80, 3), 80, 3), 80, 1, scale=head.scale, bias=shifts)
        heads.append(graph.node("Reshape", [graph.concat([boxes, scores]), shape]))
    joined = graph.node("Concat", heads, 144, axis=2)
    boxes = _decoded(graph, _channels(graph, joined, 0, 64))
    scores = graph.node("Sigmoid", [_channels(graph, joined, 64, 144)])
    anchors = sum((graph.size // stride) ** 2 for stride in (8, 16, 32))
    metadata = {
        "description": "YOLOv8n with random weights",
        "task": "detect",
        "stride": "32",
        "batch": "1",
        "imgsz": repr([graph.size, graph.size]),
        "names": repr({number: f"class {number}" for number in range(80)}),
        "args": repr({"dynamic": True, "nms": False}),
        "channels": "3",
    }
    return graph.model(graph.concat([boxes, scores]), "output0", ["batch", 84, anchors], metadata)


def _decoded(graph: Graph, distances: str) -> str:
    """Boxes [N, 4, anchors] in pixels from distributions over 16 distances per side (DFL, arXiv:2006.04388)."""
    x = graph.node("Reshape", [distances, graph.constant(np.array([0, 4, 16, -1], np.int64))], 4)
    x = graph.node("Softmax", [graph.node("Transpose", [x], 16, perm=[0, 2, 1, 3])], 16, axis=1)
    bins = graph.constant(np.arange(16, dtype=np.float32).reshape(1, 16, 1, 1))
    x = graph.node("Conv", [x, bins], 1, kernel_shape=[1, 1])
    x = graph.node("Reshape", [x, graph.constant(np.array([0, 4, -1], np.int64))], 4)
    centres, strides = _anchors(graph.size)
    middles = graph.constant(centres)
    low = graph.node("Sub", [middles, _channels(graph, x, 0, 2)], 2)
    high = graph.node("Add", [middles, _channels(graph, x, 2, 4)], 2)
    half = graph.constant(np.array(0.5, np.float32))
    centre = graph.node("Mul", [graph.node("Add", [low, high]), half])
    boxes = graph.concat([centre, graph.node("Sub", [high, low])])
    return graph.node("Mul", [boxes, graph.constant(strides)], 4)


def _anchors(size: int) -> tuple[Floats, Floats]:
    """Centres [1, 2, anchors] in cells, and strides [1, anchors], the finest level first."""
    centres, strides = [], []
    for stride in (8, 16, 32):
        cells = np.arange(size // stride, dtype=np.float32) + np.float32(0.5)
        y, x = np.meshgrid(cells, cells, indexing="ij")
        centres.append(np.stack((x.ravel(), y.ravel())))
        strides.append(np.full(x.size, stride, np.float32))
    return np.concatenate(centres, axis=1)[None], np.concatenate(strides)[None]


def count_macs(model: onnx.ModelProto) -> int:
    """Multiplications with a weight for one picture: convolutions and matrix products."""
    single = onnx.ModelProto.FromString(model.SerializeToString())
    single.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    single.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    inferred = onnx.shape_inference.infer_shapes(single, data_prop=True)
    values = [*inferred.graph.value_info, *inferred.graph.output]
    elements = {value.name: math.prod(_shape(value)) for value in values}
    weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    total = 0
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            total += elements[node.output[0]] * math.prod(weights[node.input[1]][1:])
    return total


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]


MAKERS: dict[str, Callable[[], onnx.ModelProto]] = {"resnet50": resnet50, "yolov8n": yolov8n}


def graph_file(name: str, folder: Path) -> Path:
    """The path of that graph, which is made if it is not there or older than this file."""
    path = folder / f"{name}.onnx"
    if not path.exists() or path.stat().st_mtime < Path(__file__).stat().st_mtime:
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        onnx.save(MAKERS[name](), unfinished)
        unfinished.rename(path)
    return path


def main() -> None:
    """Write both and say what they cost."""
    for name in MAKERS:
        path = graph_file(name, Path(sys.argv[1] if len(sys.argv) > 1 else "."))
        print(f"{path}: {count_macs(onnx.load(path)) / 1e9:.2f} GMACs per picture")


if __name__ == "__main__":
    main()
