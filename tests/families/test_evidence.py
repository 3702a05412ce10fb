"""A family is taken only where counts, names and values of trial pictures fit; what is guessed is said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from parallel_infer.errors import InferError, ModelRejected
from parallel_infer.model_spec import ModelSpec
from stages.geometry import Geometry
from stages.pipeline import task_for
from stages.recognise import describe
from stages.recognise.chains import scaling
from tests.families.tiny_graphs import CELLS, Array, Dims, finished, names, saved, tiny, zeros

IDENTITY = Geometry(64, 64, 1, 1, 0, 0)


def spec_of(
    folder: Path, outputs: Mapping[str, Array], metadata: Mapping[str, str] | None = None, **options: Any
) -> Any:
    return describe("m", saved(tiny(outputs, metadata=metadata), folder), options)


def said(spec: ModelSpec, text: str) -> bool:
    return any(text in warning for warning in spec.warnings)


def answered(spec: ModelSpec, outputs: Mapping[str, Array], options: bytes = b"") -> dict[str, Any]:
    task = task_for(spec)
    return dict(task.answer(outputs, IDENTITY, task.options(options)))


def with_number(shape: tuple[int, ...], place: tuple[int, ...], number: float) -> Array:
    table = zeros(*shape)
    table[place] = number
    return table


NO_DETECTORS: dict[str, dict[str, Array]] = {
    "hidden states of a transformer": {"last_hidden_state": zeros(197, 384), "pooler_output": zeros(384)},
    "a depth map": {"predicted_depth": zeros(48, 64)},
    "a depth map whose width is a number of anchors": {"depth": np.full((64, CELLS), 7.5, np.float32)},
    "landmarks where yolov5 has classes": {"output": with_number((3 * CELLS, 13), (5, 9), 34.2)},
    "distances where yolox has classes": {"output": with_number((CELLS, 34), (3, 20), -4.0)},
    "a score below 0": {"output0": with_number((20, CELLS), (7, 3), -0.5)},
    "a number of rows that is no number of anchors": {"output": zeros(250, 85)},
    "a number of columns that is no number of anchors": {"output0": zeros(80, 200)},
    "text, steps in time": {"softmax_11.tmp_0": zeros(40, 663)},
}


@pytest.mark.parametrize("outputs", NO_DETECTORS.values(), ids=NO_DETECTORS)
def test_what_is_no_detector_is_not_taken_for_one(tmp_path: Path, outputs: dict[str, Array]) -> None:
    spec = spec_of(tmp_path, outputs)
    assert spec.task in ("tensor", "map", "embedding")
    assert spec.evidence


def ready(*rows: tuple[float, ...], columns: int = 6) -> Array:
    table = zeros(300, columns)
    table[: len(rows)] = np.array(rows, np.float32)
    return table


def test_one_class_of_ready_objects_is_no_yolov5(tmp_path: Path) -> None:
    outputs = {"output0": ready((8, 8, 40, 40, 0.9, 0), (1, 1, 9, 9, 0.5, 0))}
    spec = spec_of(tmp_path, outputs, {"task": "detect", "names": "{0: 'one'}"})
    assert spec.family == "end2end"
    np.testing.assert_allclose(answered(spec, outputs)["scores"], [0.9, 0.5])


def test_ready_objects_that_lie_on_their_side_are_no_yolov8_of_two_classes(tmp_path: Path) -> None:
    outputs = {"output0": np.ascontiguousarray(ready((8, 8, 40, 40, 0.9, 1), (1, 1, 9, 9, 0.5, 0)).T)}
    metadata = {"task": "detect", "names": names(2)}
    spec = spec_of(tmp_path, outputs, metadata)
    assert spec.task == "tensor"
    assert any("whole numbers only" in evidence for evidence in spec.evidence)
    assert spec_of(tmp_path, outputs, metadata, family="yolov8").family == "yolov8"
    scores = np.full((6, 300), 0.25, np.float32)
    scores[:4] = 30
    assert spec_of(tmp_path, {"output0": scores}, metadata).family == "yolov8"


@pytest.mark.parametrize("flags", [{}, {"end2end": "True"}])
def test_a_single_box_says_that_boxes_are_fractions(tmp_path: Path, flags: dict[str, str]) -> None:
    metadata = {"task": "detect", "names": names(3), **flags}
    spec = spec_of(tmp_path, {"output0": ready((0.1, 0.1, 0.6, 0.7, 0.9, 0))}, metadata)
    assert spec.task == "tensor"  # xyxy or cxcywh: one box of both shapes does not tell
    assert any("fractions of the picture" in evidence for evidence in spec.evidence)
    by_name = spec_of(tmp_path, {"output0": ready((0.1, 0.1, 0.6, 0.7, 0.9, 0))}, metadata, family="end2end")
    assert by_name.family == "end2end"


def test_a_single_box_that_cannot_be_xyxy_is_cxcywh(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, {"output0": ready((0.5, 0.5, 0.2, 0.3, 0.9, 0))}, {"task": "detect", "names": names(3)})
    assert spec.family == "rtdetr-ultralytics-end2end"


@pytest.mark.parametrize(
    ("row", "why"),
    [((8, 8, 40, 40, 3.5, 0), "gave 3.5"), ((8, 8, 40, 40, 0.5, 0.4), "whole number"), ((8, 8, 40, 40, 0.5, 7), "7")],
)
def test_ready_objects_have_scores_and_classes(tmp_path: Path, row: tuple[float, ...], why: str) -> None:
    spec = spec_of(tmp_path, {"output0": ready(row)}, {"task": "detect", "names": names(3), "end2end": "True"})
    assert spec.task == "tensor"
    assert any(why in evidence for evidence in spec.evidence)


def test_names_are_not_dropped_to_make_another_family_fit(tmp_path: Path) -> None:
    """[cells, 9] is 4 + 5 for five names, and never 5 + 4."""
    outputs = {"output0": with_number((CELLS, 9), (3, 8), 0.75)}
    outputs["output0"][3, :4] = (32, 32, 10, 10)
    spec = spec_of(tmp_path, outputs, {"task": "detect", "names": names(5)})
    assert (spec.family, spec.parameters["classes"], spec.parameters["transposed"]) == ("yolov8", 5, True)
    found = answered(spec, outputs)
    assert (found["classes"].tolist(), found["boxes"].tolist()) == ([4], [[27, 27, 37, 37]])
    other = spec_of(tmp_path, {"output0": zeros(3 * CELLS, 9)}, {"task": "detect", "names": names(7)})
    assert other.task == "tensor"


def test_of_two_heads_the_last_is_read(tmp_path: Path) -> None:
    """YOLOv9 has an auxiliary head until it is converted."""
    main = with_number((7, CELLS), (5, 3), 0.5)
    main[:4, 3] = (32, 32, 10, 10)
    outputs = {"output0": with_number((7, CELLS), (4, 3), 0.75), "output1": main}
    spec = spec_of(tmp_path, outputs, {"names": names(3)})
    assert (spec.family, spec.parameters["output"]) == ("yolov8", "output1")
    assert said(spec, "nothing is read of the outputs output0")
    assert answered(spec, outputs)["classes"].tolist() == [1]


def test_prototypes_with_channels_last_are_not_read_as_others(tmp_path: Path) -> None:
    """As TensorFlow's exports have them: their height would be taken for the number of coefficients."""
    outputs = {"output0": zeros(4 + 2 + 32, CELLS), "output1": zeros(16, 16, 32)}
    path = saved(tiny(outputs, metadata={"task": "segment", "names": "['a', 'b']"}), tmp_path)
    assert describe("m", path).task == "tensor"
    with pytest.raises(ModelRejected, match=r"expected mask prototypes \[coefficients, height, width\]"):
        describe("m", path, {"task": "segment"})


def test_outputs_that_are_not_read_are_named(tmp_path: Path) -> None:
    outputs = {"output": zeros(3 * CELLS, 8), "head8": zeros(3, 8, 8, 8)}
    assert said(spec_of(tmp_path, outputs, {"names": names(3)}), "nothing is read of the outputs head8")


def test_the_user_may_insist(tmp_path: Path) -> None:
    outputs = {"output0": with_number((21, 90), (7, 3), 5.0)}
    assert spec_of(tmp_path, outputs).task == "tensor"
    assert spec_of(tmp_path, outputs, family="yolov8").parameters["classes"] == 17


@pytest.mark.parametrize("number", [1.5, 34.2, np.inf])
def test_a_score_above_one_is_an_error(tmp_path: Path, number: float) -> None:
    detector = spec_of(tmp_path, {"output0": zeros(6, CELLS)}, {"task": "detect", "names": names(2)})
    with pytest.raises(InferError, match="score|finite"):
        answered(detector, {"output0": with_number((6, CELLS), (4, 3), number)})
    classifier = spec_of(tmp_path, {"probs": zeros(4) + 0.25}, {"task": "classify", "names": names(4)})
    with pytest.raises(InferError, match="score|finite"):
        answered(classifier, {"probs": with_number((4,), (2,), number)})


# Classifiers


def scores(operators: tuple[str, ...], count: int = 4, output: str = "output", **metadata: str) -> onnx.ModelProto:
    """[batch, 3, 64, 64] -> [batch, count] past these operators: the channel means, over and over."""
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["x0"]),
        *(helper.make_node(operator, [f"x{place}"], [f"x{place + 1}"]) for place, operator in enumerate(operators)),
        helper.make_node("Identity", [f"x{len(operators)}"], [output]),
    ]
    weights = np.linspace(-3, 5, 3 * count, dtype=np.float32).reshape(3, count)
    return finished(
        helper.make_graph(
            nodes,
            "scores",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 64, 64])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", count])],
            [numpy_helper.from_array(weights, "weights")],
        ),
        metadata,
    )


KINDS = [
    (("Softmax",), "none"),
    (("Sigmoid",), "none"),
    (("HardSigmoid",), "none"),
    (("LogSoftmax",), "softmax"),
    ((), "softmax"),
    (("Sigmoid", "Flatten"), "none"),
]


@pytest.mark.parametrize(("operators", "activation"), KINDS, ids=str)
def test_what_scores_are_shows_in_the_graph(tmp_path: Path, operators: tuple[str, ...], activation: str) -> None:
    spec = describe("m", saved(scores(operators), tmp_path))
    assert (spec.task, spec.parameters["activation"]) == ("classify", activation)
    assert said(spec, "set multi_label = true") == ("igmoid" in "".join(operators))
    assert said(spec, "is taken for logits") == (operators == ())


def test_many_sigmoids_are_their_own_scores(tmp_path: Path) -> None:
    spec = describe("m", saved(scores(("Sigmoid",)), tmp_path))
    row = np.array([0.97, 0.9, 0.1, 0.2], np.float32)
    np.testing.assert_allclose(answered(spec, {"output": row})["scores"], [0.97, 0.9, 0.2, 0.1])


def test_one_sigmoid_is_one_score_or_two_classes(tmp_path: Path) -> None:
    path = saved(scores(("Sigmoid",), 1), tmp_path)
    for value in (0.9, 0.2):
        row = {"output": np.array([value], np.float32)}
        np.testing.assert_allclose(answered(describe("m", path), row)["scores"], [value])
        two = answered(describe("m", path, {"names": ["cat", "dog"]}), row)
        assert dict(zip(two["classes"].tolist(), two["scores"].round(4).tolist(), strict=True)) == {
            0: pytest.approx(1 - value),
            1: pytest.approx(value),
        }


def test_one_number_is_no_score_unless_somebody_says_so(tmp_path: Path) -> None:
    path = saved(scores((), 1), tmp_path)
    assert describe("m", path).task == "tensor"
    asked = describe("m", path, {"task": "classify"})
    assert asked.parameters["activation"] == "sigmoid"
    np.testing.assert_allclose(answered(asked, {"output": zeros(1)})["scores"], [0.5])


def test_logits_of_several_true_classes_get_a_sigmoid(tmp_path: Path) -> None:
    spec = describe("m", saved(scores(()), tmp_path), {"multi_label": True, "conf": 0.0})
    row = np.array([4.0, 3.0, -4.0, 0.5], np.float32)
    np.testing.assert_allclose(
        answered(spec, {"output": row})["scores"], 1 / (1 + np.exp([-4, -3, -0.5, 4])), rtol=1e-5
    )


def test_logits_beside_an_embedding(tmp_path: Path) -> None:
    outputs = {"logits": zeros(3), "embedding": zeros(8)}
    spec = spec_of(tmp_path, outputs)
    assert (spec.task, spec.parameters["output"]) == ("classify", "logits")
    assert said(spec, "nothing is read of the outputs embedding")
    assert answered(spec, outputs)["scores"].size == 3


def test_a_row_in_a_table_of_one_is_a_row(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, {"output": zeros(1, 4) + 0.25})
    assert (spec.task, spec.parameters["classes"]) == ("classify", 4)


def test_a_vector_of_length_one_is_no_score(tmp_path: Path) -> None:
    vector = np.array([0.6, -0.8, 0, 0], np.float32)
    assert spec_of(tmp_path, {"output": vector}).task != "classify"


# How pictures are prepared


def rescaled(*steps: tuple[str, Any], dims: Dims = ("batch", 64, 64, 3)) -> onnx.ModelProto:
    nodes, constants, name = [], [], "images"
    for place, (operator, value) in enumerate(steps):
        constants.append(numpy_helper.from_array(np.array(value, np.float32), f"c{place}"))
        nodes.append(helper.make_node(operator, [name, f"c{place}"], [f"s{place}"]))
        name = f"s{place}"
    nodes += [
        helper.make_node("ReduceMean", [name], ["m"], axes=[1, 2], keepdims=0),
        helper.make_node("Softmax", ["m"], ["probs"]),
    ]
    picture = helper.make_tensor_value_info("images", TensorProto.FLOAT, dims)
    probs = helper.make_tensor_value_info("probs", TensorProto.FLOAT, ["batch", 3])
    return finished(helper.make_graph(nodes, "rescaled", [picture], [probs], constants))


MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
RESCALED = [
    ((("Div", 127.5), ("Sub", 1.0)), 1.0),
    ((("Mul", 1 / 127.5), ("Add", -1.0)), 1.0),
    ((("Mul", 1 / 255), ("Sub", MEAN), ("Div", STD)), 1.0),
    ((("Sub", 255 * MEAN), ("Div", 255 * STD)), 1.0),
    ((("Sub", 255 * MEAN),), 1.0),
    ((("Sub", MEAN), ("Div", STD)), 255.0),
    ((("Mul", 2.0), ("Sub", 1.0)), 255.0),
    ((("Mul", 255.0), ("Sub", 255 * MEAN)), 255.0),
]


@pytest.mark.parametrize(("steps", "std"), RESCALED, ids=str)
def test_a_graph_that_rescales_its_picture_gets_what_it_rescales(
    tmp_path: Path, steps: tuple[tuple[str, Any], ...], std: float
) -> None:
    spec = describe("m", saved(rescaled(*steps), tmp_path))
    assert (spec.preprocess["mean"], spec.preprocess["std"]) == ((0.0,) * 3, (std,) * 3)
    assert any("rescales its picture itself" in evidence for evidence in spec.evidence)
    assert said(spec, "set resize, color")
    changed = describe("m", saved(rescaled(*steps), tmp_path), {"mean": 1, "std": 2})
    assert (changed.preprocess["mean"], changed.preprocess["std"]) == ((1.0,) * 3, (2.0,) * 3)


def test_a_graph_that_does_not_rescale() -> None:
    assert scaling(rescaled().graph, "images") is None


def test_every_guess_of_the_preparation_is_said_until_it_is_settled(tmp_path: Path) -> None:
    path = saved(scores(("Softmax",)), tmp_path)
    assert said(describe("m", path), "std 58.395, 57.12, 57.375 is a guess; set resize, color, mean, std")
    assert said(describe("m", path, {"mean": 0, "std": 255}), "is a guess; set resize, color")
    settled = describe("m", path, {"mean": 0, "std": 255, "resize": "crop", "color": "bgr"})
    assert not said(settled, "guess")
    ours = describe("m", saved(scores(("Softmax",), task="classify"), tmp_path))
    assert not said(ours, "guess")


def test_a_detector_of_gray_pictures(tmp_path: Path) -> None:
    inputs: dict[str, tuple[str, Dims]] = {"images": ("float32", ("batch", 1, 64, 64))}
    model = tiny({"output0": zeros(6, CELLS)}, inputs, {"task": "detect", "names": names(2), "channels": "1"})
    spec = describe("m", saved(model, tmp_path), {"color": "bgr"})
    assert (spec.family, spec.preprocess["color"]) == ("yolov8", "gray")
    assert said(spec, "color has no effect: the input has one channel")
