"""Objects that come joined, one picture at a time: PaddleDetection, rows with the picture's number, and others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from parallel_infer.model_spec import ModelSpec
from stages.recognise import describe
from tests.families.served import answer_of
from tests.families.test_batch_proof import number
from tests.families.tiny_graphs import Array, Dims, finished, saved, tiny

FRAME = np.full((64, 128, 3), 90, np.uint8)
BOX = (8.0, 16.0, 40.0, 48.0)  # in a row of 64 x 64
FOUND = [[16.0, 16.0, 80.0, 48.0]]  # in the picture of 128 x 64, stretched to the row


def said(spec: ModelSpec, text: str) -> bool:
    return any(text in warning for warning in spec.warnings)


def joined(rows: Array, inputs: Mapping[str, Dims], outputs: int = 1) -> onnx.ModelProto:
    """The first rows of a table, as many as ten times the picture's mean, which is 0 to 1, say."""
    picture = next(iter(inputs))
    further = [name for name in inputs if name != picture]
    nodes = [
        helper.make_node("ReduceMean", [picture], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "ten"], ["scaled"]),
        helper.make_node("Cast", ["scaled"], ["count"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["count", "one"], ["end"]),
        helper.make_node("Slice", ["table", "zero", "end", "zero"], ["rows"]),
        *(helper.make_node("ReduceSum", [name], [f"{name}_sum"], keepdims=0) for name in further),
    ]
    last = "rows"
    for name in further:  # read, and without effect
        nodes += [
            helper.make_node("Mul", [f"{name}_sum", "nothing"], [f"{name}_zero"]),
            helper.make_node("Add", [last, f"{name}_zero"], [f"{name}_rows"]),
        ]
        last = f"{name}_rows"
    nodes.append(helper.make_node("Identity", [last], ["found"]))
    declared = [helper.make_tensor_value_info("found", TensorProto.FLOAT, ["n", rows.shape[1]])]
    if outputs == 2:
        nodes.append(helper.make_node("Cast", ["end"], ["number"], to=TensorProto.INT32))
        declared.append(helper.make_tensor_value_info("number", TensorProto.INT32, [1]))
    return finished(
        helper.make_graph(
            nodes,
            "joined",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in inputs.items()],
            declared,
            [
                number("ten", 10.0, np.float32),
                number("nothing", 0.0, np.float32),
                number("one", [1]),
                number("zero", [0]),
                numpy_helper.from_array(rows.astype(np.float32), "table"),
            ],
        )
    )


PICTURE: dict[str, Dims] = {"image": ("batch", 3, 64, 64)}
PADDLE: list[dict[str, Dims]] = [
    {**PICTURE, "scale_factor": ("batch", 2)},
    {**PICTURE, "scale_factor": ("batch", 2), "im_shape": ("batch", 2)},
]


@pytest.mark.parametrize("inputs", PADDLE, ids=["image", "image and its shape"])
def test_paddle_detection(tmp_path: Path, inputs: dict[str, Dims]) -> None:
    rows = np.array([[2, 0.9, *BOX], [-1, 0.8, *BOX], [1, 0.1, *BOX]])
    spec = describe("m", saved(joined(rows, inputs, 2), tmp_path))
    assert (spec.family, spec.task, spec.batch) == ("paddle-detection", "detect", 1)
    assert spec.preprocess["constants"]["scale_factor"] == [1.0, 1.0]
    assert spec.preprocess["constants"].get("im_shape", [64.0, 64.0]) == [64.0, 64.0]
    assert said(spec, "mean 123.675, 116.28, 103.53")
    assert said(spec, "set resize, color, mean, std")
    answer = answer_of(spec, np.full((64, 128, 3), 255, np.uint8))
    np.testing.assert_allclose(answer["boxes"], FOUND)
    assert answer["classes"].tolist() == [2]
    np.testing.assert_allclose(answer["scores"], [0.9])
    assert answer_of(spec, np.zeros((64, 128, 3), np.uint8))["scores"].size == 0


NUMBERED = {"class, score": [0, *BOX, 2, 0.9], "score, class": [0, *BOX, 0.9, 2]}


@pytest.mark.parametrize("order", NUMBERED)
def test_rows_with_the_number_of_their_picture(tmp_path: Path, order: str) -> None:
    path = saved(joined(np.array([NUMBERED[order]] * 10), {"images": (1, 3, 64, 64)}), tmp_path)
    spec = describe("m", path, {"resize": "stretch"})
    assert (spec.family, spec.task, spec.outputs[0].shape) == ("numbered", "detect", (-1, 7))
    assert any(order in evidence for evidence in spec.evidence)
    answer = answer_of(spec, FRAME)
    assert len(answer["scores"]) == 3  # ten times 90 of 255
    np.testing.assert_allclose(answer["boxes"][:1], FOUND)
    assert answer["classes"][0] == 2
    assert answer_of(spec, np.zeros((64, 128, 3), np.uint8))["scores"].size == 0


def test_another_first_column_is_no_number_of_a_picture(tmp_path: Path) -> None:
    rows = np.array([[*BOX, 0.9, 2, 0.5]] * 10)
    assert describe("m", saved(joined(rows, {"images": (1, 3, 64, 64)}), tmp_path)).task == "tensor"


def tensorflow(classes: list[float], **further: Array) -> dict[str, Array]:
    top_left = np.array([BOX[1], BOX[0], BOX[3], BOX[2]], np.float32) / 64
    return {
        "detection_boxes": np.tile(top_left, (3, 1)),
        "detection_scores": np.array([0.9, 0.1, 0.0], np.float32),
        "detection_classes": np.array(classes, np.float32),
        "num_detections": np.array(3.0, np.float32),
        **further,
    }


@pytest.mark.parametrize(("classes", "expected"), [([3, 1, 1], 2), ([3, 0, 0], 3)], ids=["from one on", "from zero on"])
def test_tensorflow_has_y_first(tmp_path: Path, classes: list[float], expected: int) -> None:
    inputs: dict[str, tuple[str, Dims]] = {"input_tensor": ("uint8", (1, 64, 64, 3))}
    outputs = tensorflow(classes, raw_detection_boxes=np.zeros((9, 4), np.float32))
    spec = describe("m", saved(tiny(outputs, inputs, batch=1), tmp_path))
    assert (spec.family, spec.preprocess["std"]) == ("tensorflow-detection", (1.0,) * 3)
    assert said(spec, "nothing is read of the outputs raw_detection_boxes")
    answer = answer_of(spec, FRAME)
    np.testing.assert_allclose(answer["boxes"], FOUND, atol=1e-4)
    assert answer["classes"].tolist() == [expected]


def test_torchvision_takes_a_picture_without_a_batch(tmp_path: Path) -> None:
    dims = {"boxes": ["n", 4], "labels": ["n"], "scores": ["n"]}
    values = {
        "boxes": np.array([BOX, BOX], np.float32),
        "labels": np.array([3, 1]),
        "scores": np.array([0.9, 0.1], np.float32),
    }
    kinds = {"boxes": TensorProto.FLOAT, "labels": TensorProto.INT64, "scores": TensorProto.FLOAT}
    graph = helper.make_graph(
        [helper.make_node("Identity", [f"{name}_value"], [name]) for name in values],
        "torchvision",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [3, "h", "w"])],
        [helper.make_tensor_value_info(name, kinds[name], dims[name]) for name in values],
        [numpy_helper.from_array(value, f"{name}_value") for name, value in values.items()],
    )
    spec = describe("m", saved(finished(graph), tmp_path), {"imgsz": 64, "resize": "stretch"})
    assert (spec.family, spec.batch, spec.inputs[0].shape) == ("torchvision", 1, (3, 64, 64))
    answer = answer_of(spec, FRAME)
    np.testing.assert_allclose(answer["boxes"], FOUND)
    assert answer["classes"].tolist() == [3]
    assert said(describe("m", saved(finished(graph), tmp_path), {"imgsz": 64, "names": ["a"] * 4}), "0 is mostly")


OUTPUTS: dict[str, Any] = {"boxes": np.zeros((5, 4), np.float32), "scores": np.zeros(5, np.float32)}


def test_labels_that_are_no_whole_numbers_are_none(tmp_path: Path) -> None:
    assert describe("m", saved(tiny({**OUTPUTS, "labels": np.zeros(5, np.float32)}), tmp_path)).task == "tensor"
