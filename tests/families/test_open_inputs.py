"""What a graph leaves open or fixes: the batch, sizes, and the inputs of models that take tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from parallel_infer.errors import ConfigError, ModelRejected
from stages.recognise import describe
from tests.families.test_families_feeding import DETECT, DYNAMIC, V8, images
from tests.families.tiny_graphs import CELLS, Dims, finished, saved, tiny, zeros


def fixed(batch: int) -> Any:
    return tiny(V8, images((batch, 3, 64, 64)), DETECT, batch=batch)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_is_kept_and_reported(tmp_path: Path, batch: int) -> None:
    spec = describe("m", saved(fixed(batch), tmp_path))
    assert spec.batch == batch
    assert any("dynamic batch: yolo export" in warning for warning in spec.warnings)


def test_an_output_with_a_fixed_batch_counts_too(tmp_path: Path) -> None:
    spec = describe("m", saved(tiny(V8, metadata=DETECT, declared={"output0": (1, 84, CELLS)}), tmp_path))
    assert spec.batch == 1
    assert any("output0 has a fixed batch of 1" in warning for warning in spec.warnings)


def reshaped(shape: list[int]) -> Any:
    """x [batch, 4] reshaped to a shape that has a batch baked in, and that only a run brings to light."""
    graph = helper.make_graph(
        [helper.make_node("Max", ["shape", "shape"], ["hidden"]), helper.make_node("Reshape", ["x", "hidden"], ["y"])],
        "reshaped",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "p", "q"])],
        [numpy_helper.from_array(np.array(shape, np.int64), "shape")],
    )
    return finished(graph)


@pytest.mark.parametrize("shape", [[1, 2, 2], [1, 2, -1]], ids=["fails at two", "swallows a job"])
def test_a_batch_baked_into_a_reshape_is_found_out(tmp_path: Path, shape: list[int]) -> None:
    spec = describe("m", saved(reshaped(shape), tmp_path))
    assert spec.batch == 1
    assert spec.outputs[0].shape == (2, 2)
    assert any("run with 2 failed" in warning for warning in spec.warnings)


def test_a_batch_that_the_graph_infers_is_fixed(tmp_path: Path) -> None:
    model = reshaped([1, 2, 2])
    model.graph.node[1].input[1] = "shape"
    spec = describe("m", saved(model, tmp_path))
    assert spec.batch == 1
    assert any("y has a fixed batch of 1" in warning for warning in spec.warnings)


def test_a_reshape_that_leaves_the_batch_open_is_fine(tmp_path: Path) -> None:
    spec = describe("m", saved(reshaped([-1, 2, 2]), tmp_path))
    assert (spec.batch, spec.outputs[0].shape) == (None, (2, 2))


def test_tensor_models_take_any_inputs(tmp_path: Path) -> None:
    inputs: dict[str, tuple[str, Dims]] = {"a": ("int64", ("n", 5)), "b": ("float64", ("n",)), "c": ("bool", ("n", 2))}
    outputs = {"y": np.zeros((2, 3), np.int32), "z": np.zeros((), np.float32)}
    spec = describe("m", saved(tiny(outputs, inputs), tmp_path))
    assert (spec.task, spec.family, spec.preprocess) == ("tensor", "tensor", {})
    assert [(t.dtype, t.shape) for t in spec.inputs] == [("int64", (5,)), ("float64", ()), ("bool", (2,))]
    assert [(t.dtype, t.shape) for t in spec.outputs] == [("int32", (2, 3)), ("float32", ())]
    assert spec.row_size == 5 * 8 + 8 + 2


def test_open_dimensions_of_a_tensor_model_are_asked_for(tmp_path: Path) -> None:
    path = saved(tiny({"y": zeros(3)}, {"a": ("int64", ("n", "length", 4))}), tmp_path)
    with pytest.raises(ModelRejected, match=r"shapes = \{a = \[\?, 4\]\}"):
        describe("m", path)
    assert describe("m", path, {"shapes": {"a": [7, 4]}}).inputs[0].shape == (7, 4)


def test_a_picture_has_three_channels(tmp_path: Path) -> None:
    path = saved(tiny({"o": zeros(10)}, {"pixel_values": ("float32", ("b", "c", "h", "w"))}), tmp_path)
    assert describe("m", path, {"shapes": {"pixel_values": [3, 32, 32]}}).task == "classify"
    with pytest.raises(ConfigError, match="3 channels"):
        describe("m", path, {"shapes": {"pixel_values": [4, 32, 32]}})
    tensor = describe("m", path, {"shapes": {"pixel_values": [4, 32, 32]}, "task": "tensor"})
    assert tensor.inputs[0].shape == (4, 32, 32)


@pytest.mark.parametrize(("shape", "layout"), [((3, 48, 32), "nchw"), ((48, 32, 3), "nhwc")])
def test_the_shape_that_the_user_gives_tells_a_picture(tmp_path: Path, shape: tuple[int, ...], layout: str) -> None:
    path = saved(tiny({"o": zeros(10)}, {"input.1": ("float32", ("N", "A", "B", "C"))}), tmp_path)
    spec = describe("m", path, {"shapes": {"input.1": shape}, "names": [str(number) for number in range(10)]})
    assert (spec.task, spec.preprocess["layout"]) == ("classify", layout)
    assert (spec.preprocess["height"], spec.preprocess["width"]) == (48, 32)
    assert describe("m", path, {"shapes": {"input.1": [4, 48, 32]}}).preprocess == {}


def test_a_dimension_with_a_name_is_given_once(tmp_path: Path) -> None:
    inputs: dict[str, tuple[str, Dims]] = {"ids": ("int64", ("n", "length")), "mask": ("int64", ("n", "length"))}
    spec = describe("m", saved(tiny({"y": zeros(3)}, inputs), tmp_path), {"shapes": {"mask": [7]}})
    assert [tensor.shape for tensor in spec.inputs] == [(7,), (7,)]


def test_a_guessed_size_is_not_good_enough_for_tensors(tmp_path: Path) -> None:
    path = saved(tiny({"strange": zeros(2, 3, 4, 5)}, images(DYNAMIC)), tmp_path)
    with pytest.raises(ModelRejected, match=r"shapes = \{images"):
        describe("m", path)
    assert describe("m", path, {"imgsz": 32}).inputs[0].shape == (3, 32, 32)


def test_a_picture_with_inputs_of_unknown_meaning_is_a_tensor_model(tmp_path: Path) -> None:
    inputs = {**images(("b", 3, 64, 64)), "prompt": ("int64", ("b", 4))}
    path = saved(tiny(V8, inputs), tmp_path)
    spec = describe("m", path)
    assert spec.task == "tensor"
    assert any("prompt" in warning for warning in spec.warnings)
    with pytest.raises(ModelRejected, match="unknown meaning: prompt"):
        describe("m", path, {"family": "yolov8"})


def found_points() -> Any:
    """The places where x is not zero: as many as there are. Its first dimension is not the batch."""
    graph = helper.make_graph(
        [helper.make_node("NonZero", ["x"], ["y"])],
        "found",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 8])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [2, "found"])],
    )
    return finished(graph)


def test_a_dimension_that_follows_from_the_values_is_left_open(tmp_path: Path) -> None:
    spec = describe("m", saved(found_points(), tmp_path))
    assert (spec.outputs[0].shape, spec.outputs[0].size) == ((2, -1), 0)
