"""Batch is proven at load, never believed: what is no batch is found out, and what a run alone shows is not frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from parallel_infer.errors import ModelRejected
from parallel_infer.model_spec import ModelSpec
from stages.recognise import describe
from stages.recognise.proof import alike
from tests.families.tiny_graphs import Dims, finished, saved, tiny, zeros

Node = onnx.NodeProto
node = helper.make_node


def number(name: str, value: Any, dtype: Any = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, dtype), name)


def graph(
    nodes: list[Node],
    inputs: dict[str, Dims],
    outputs: dict[str, Dims],
    constants: list[onnx.TensorProto] | None = None,
    metadata: dict[str, str] | None = None,
    integers: tuple[str, ...] = (),
) -> onnx.ModelProto:
    def value(name: str, dims: Dims) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.INT64 if name in integers else TensorProto.FLOAT, dims)

    ports = [[value(name, dims) for name, dims in side.items()] for side in (inputs, outputs)]
    return finished(helper.make_graph(nodes, "g", *ports, constants or []), metadata)


def time_major() -> onnx.ModelProto:
    """image [batch, 3, 4, 8] -> logits [4, batch, 24]: steps in time first, as recurrent networks of PyTorch have."""
    return graph(
        [
            node("Transpose", ["image"], ["turned"], perm=[2, 0, 1, 3]),
            node("Reshape", ["turned", "s"], ["logits"]),
        ],
        {"image": ("batch", 3, 4, 8)},
        {"logits": (4, "batch", 24)},
        [number("s", [4, -1, 24])],
    )


def recurrent(state: Dims = (2, "batch", 4), batch: int | str | None = "batch") -> onnx.ModelProto:
    """input [batch, 8] and state [2, batch, 4] -> output [batch, 1] = all of both, and the next state."""
    return graph(
        [
            node("ReduceSum", ["x", "last"], ["a"]),
            node("ReduceSum", ["state", "ends"], ["b"], keepdims=0),
            node("Unsqueeze", ["b", "last"], ["c"]),
            node("Add", ["a", "c"], ["y"]),
            node("Add", ["state", "state"], ["next"]),
        ],
        {"x": (batch, 8), "state": state},
        {"y": (batch, 1), "next": state},
        [number("last", [1]), number("ends", [0, 2])],
    )


def described(tmp_path: Path, model: onnx.ModelProto, **options: Any) -> ModelSpec:
    return describe("m", saved(model, tmp_path), options)


def said(spec: ModelSpec, text: str) -> bool:
    return any(text in warning for warning in spec.warnings)


def test_steps_in_time_are_no_batch(tmp_path: Path) -> None:
    spec = described(tmp_path, time_major(), task="tensor")
    assert (spec.batch, spec.outputs[0].shape, spec.outputs[0].axis) == (1, (4, 24), 1)
    assert said(spec, "its first dimension is not the batch")
    assert said(spec, "one by one")


def test_layers_of_a_state_are_no_batch(tmp_path: Path) -> None:
    spec = described(tmp_path, recurrent())
    assert spec.batch == 1
    assert [(tensor.shape, tensor.axis) for tensor in spec.inputs] == [((8,), 0), ((2, 4), 1)]
    assert [(tensor.shape, tensor.axis) for tensor in spec.outputs] == [((1,), 0), ((2, 4), 1)]
    assert said(spec, "state has no batch as its first dimension: jobs run one by one")


def test_a_batch_without_a_name_is_found_by_the_shape_that_the_user_gives(tmp_path: Path) -> None:
    spec = described(tmp_path, recurrent((2, None, None), None), shapes={"state": [2, 4]})
    assert (spec.inputs[1].shape, spec.inputs[1].axis) == ((2, 4), 1)


def test_inputs_of_fixed_sizes_that_differ_are_one_job(tmp_path: Path) -> None:
    spec = described(tmp_path, recurrent((2, 1, 4), 1))
    assert spec.batch == 1
    assert [(tensor.shape, tensor.axis) for tensor in spec.inputs] == [((8,), 0), ((2, 1, 4), None)]


def test_a_single_number_is_an_input_of_its_own(tmp_path: Path) -> None:
    rate = graph(
        [node("Cast", ["rate"], ["r"], to=TensorProto.FLOAT), node("Mul", ["x", "r"], ["y"])],
        {"x": ("batch", 3), "rate": ()},
        {"y": ("batch", 3)},
        integers=("rate",),
    )
    spec = described(tmp_path, rate)
    assert (spec.batch, spec.inputs[1].shape, spec.inputs[1].axis) == (1, (), None)


def test_numbers_that_a_graph_refuses_are_tried_with_others(tmp_path: Path) -> None:
    """A sampling rate of 0 is not one: the graph has an entry for 16000 alone."""
    rate = graph(
        [
            node("Sub", ["rate", "least"], ["index"]),
            node("Gather", ["table", "index"], ["r"]),
            node("Mul", ["x", "r"], ["y"]),
        ],
        {"x": ("batch", 3), "rate": ()},
        {"y": ("batch", 3)},
        [number("least", 16000), number("table", [1.0], np.float32)],
        integers=("rate",),
    )
    assert described(tmp_path, rate).inputs[1].shape == ()


def test_a_mean_over_the_batch_is_run_one_by_one(tmp_path: Path) -> None:
    """The shapes are right, and the numbers are those of all jobs together."""
    mean = graph(
        [node("ReduceMean", ["x"], ["m"], axes=[0]), node("Sub", ["x", "m"], ["y"])],
        {"x": ("batch", 3)},
        {"y": ("batch", 3)},
    )
    spec = described(tmp_path, mean)
    assert (spec.batch, spec.outputs[0].shape) == (1, (3,))
    assert said(spec, "got other numbers in 'y' than alone")


def first_only(last: int) -> onnx.ModelProto:
    """y = x for the first `last` jobs of a batch and 0 for the others: a loop that was unrolled for the export."""
    return graph(
        [
            node("Shape", ["x"], ["shape"]),
            node("Gather", ["shape", "zero"], ["jobs"]),
            node("Range", ["zero", "jobs", "one"], ["places"]),
            node("Less", ["places", "last"], ["live"]),
            node("Cast", ["live"], ["ones"], to=TensorProto.FLOAT),
            node("Reshape", ["ones", "column"], ["mask"]),
            node("Mul", ["x", "mask"], ["y"]),
        ],
        {"x": ("batch", 3)},
        {"y": ("batch", 3)},
        [number("zero", 0), number("one", 1), number("last", last), number("column", [-1, 1])],
    )


def test_rows_that_come_out_empty_are_found(tmp_path: Path) -> None:
    assert described(tmp_path, first_only(1)).batch == 1
    two = described(tmp_path, first_only(2))
    assert (two.batch, two.largest_batch) == (None, 2)
    assert said(two, "batches are of at most 2")
    assert described(tmp_path, first_only(100)).largest_batch is None


def test_suppression_that_is_unrolled_is_capped_at_the_batch_of_the_export(tmp_path: Path) -> None:
    metadata = {"task": "detect", "names": "['a']", "args": "{'nms': True, 'dynamic': True}"}
    outputs = {"output0": zeros(300, 6)}
    one = described(tmp_path, tiny(outputs, metadata={**metadata, "batch": "1"}))
    assert one.batch == 1
    assert said(one, "unrolled for a batch of 1")
    four = described(tmp_path, tiny(outputs, metadata={**metadata, "batch": "4"}))
    assert (four.batch, four.largest_batch) == (None, 4)


@pytest.mark.parametrize("jobs", [2, 3, 4])
def test_a_dimension_that_only_happens_to_be_as_long_as_the_trial(tmp_path: Path, jobs: int) -> None:
    """y [jobs, 3] whatever the batch: at some trial it looks like a batch of that many jobs."""
    always = graph(
        [node("ReduceMean", ["x"], ["m"], axes=[0]), node("Expand", ["m", "shape"], ["y"])],
        {"x": ("batch", 3)},
        {"y": (None, 3)},
        [number("shape", [jobs, 3])],
    )
    spec = described(tmp_path, always)
    assert (spec.batch, spec.outputs[0].shape, spec.outputs[0].axis) == (1, (jobs, 3), None)


def test_a_fixed_batch_whose_rows_depend_on_one_another_is_one_job(tmp_path: Path) -> None:
    """Four frames of a film, and their mean."""
    mean = graph(
        [node("ReduceMean", ["x"], ["m"], axes=[0]), node("Sub", ["x", "m"], ["y"])], {"x": (4, 3)}, {"y": (4, 3)}
    )
    spec = described(tmp_path, mean)
    assert (spec.batch, spec.inputs[0].shape, spec.inputs[0].axis, spec.outputs[0].shape) == (1, (4, 3), None, (4, 3))
    assert said(spec, "x has a fixed batch of 4, which is no batch")


def cut() -> onnx.ModelProto:
    """The first n rows of a table, n by the mean of the picture: no operator of variable shape by its name."""
    return graph(
        [
            node("ReduceMean", ["images"], ["mean"], keepdims=0),
            node("Mul", ["mean", "eight"], ["scaled"]),
            node("Cast", ["scaled"], ["count"], to=TensorProto.INT64),
            node("Reshape", ["count", "one"], ["end"]),
            node("Slice", ["table", "zero", "end", "one"], ["output0"]),
        ],
        {"images": (1, 3, 64, 64)},
        {"output0": (1, "n", 6)},
        [
            number("eight", 8.0, np.float32),
            number("one", [1]),
            number("zero", [0]),
            number("table", np.zeros((1, 20, 6)), np.float32),
        ],
        {"task": "detect", "names": "['a']", "end2end": "True"},
    )


def test_a_dimension_that_the_picture_decides_is_left_open(tmp_path: Path) -> None:
    assert described(tmp_path, cut()).outputs[0].shape == (-1, 6)


def test_a_count_of_objects_is_no_batch_where_there_is_one_object(tmp_path: Path) -> None:
    """[n, 7] of one object: the first dimension is 1, and is not the batch."""
    model = cut()
    model.graph.node[-1].output[0] = "sliced"
    model.graph.node.append(node("Squeeze", ["sliced", "zero"], ["output0"]))
    del model.graph.output[0].type.tensor_type.shape.dim[0]
    del model.metadata_props[:]
    spec = described(tmp_path, model)
    assert (spec.outputs[0].shape, spec.outputs[0].axis) == ((-1, 6), None)


def test_question_marks_are_no_name(tmp_path: Path) -> None:
    """Paddle's exporter calls every open dimension "?": they are not all one size."""
    for name in ("?", "None", "-1"):
        sums = graph(
            [node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)], {"x": (name, 3, name, name)}, {"y": (name, 3)}
        )
        spec = described(tmp_path, sums, shapes={"x": [3, 48, 192]})
        assert (spec.batch, spec.inputs[0].shape) == (None, (3, 48, 192))


def test_a_picture_without_a_batch(tmp_path: Path) -> None:
    bare = graph(
        [node("ReduceMean", ["image"], ["scores"], axes=[1, 2], keepdims=0)], {"image": (3, "h", "w")}, {"scores": (3,)}
    )
    spec = described(tmp_path, bare, imgsz=[32, 48])
    assert (spec.batch, spec.inputs[0].shape, spec.inputs[0].axis) == (1, (3, 32, 48), None)
    assert (spec.outputs[0].shape, spec.outputs[0].axis) == ((3,), None)


def test_the_text_of_a_trial_that_fails_has_the_shapes_tried(tmp_path: Path) -> None:
    broken = recurrent()
    broken.graph.initializer.append(number("place", 7))
    broken.graph.node[-1].CopyFrom(node("Gather", ["state", "place"], ["next"]))
    broken.graph.output[1].type.tensor_type.ClearField("shape")
    with pytest.raises(ModelRejected, match=r"x \[1, 8\], state \[2, 1, 4\]"):
        described(tmp_path, broken)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_noise_of_arithmetic_is_no_difference(dtype: str) -> None:
    values = np.linspace(-100, 100, 1000).astype(dtype)
    noise = 1e-2 if dtype == "float16" else 1e-4
    assert alike((values + noise).astype(dtype), values)
    other = values.copy()
    other[3] += 5
    assert not alike(other, values)
    assert not alike(values[:-1], values)
    other[3] = np.nan
    assert not alike(other, values)
    assert alike(other, other)


def test_other_whole_numbers_are_a_difference() -> None:
    values = np.arange(100)
    assert alike(values, values.copy())
    assert not alike(values + 1, values)


def test_a_few_rows_that_change_places_are_no_difference() -> None:
    """Scores of a sorted output that are almost equal swap by noise; an object that is missing does not."""
    rows = np.linspace(0, 100, 600, dtype=np.float32).reshape(100, 6)
    swapped = rows.copy()
    swapped[[10, 11]] = rows[[11, 10]]
    assert alike(swapped, rows)
    assert alike(swapped[:, 0], rows[:, 0])
    missing = rows.copy()
    missing[10] = 0
    assert not alike(missing, rows)
    assert not alike(rows[::-1], rows)
    classes = np.arange(100)
    other = classes.copy()
    other[[3, 4]] = classes[[4, 3]]
    assert alike(other, classes)
    other[3] = 7
    assert not alike(other, classes)
    assert alike(np.float32(1.0) * np.ones(()), np.ones((), np.float64))
    assert not alike(np.zeros((), np.int64), np.ones((), np.int64))


def scaled(*nodes: Node) -> onnx.ModelProto:
    """image [batch, 3, 16, 16] -> y -> output [batch, 3], the mean of each channel of y."""
    mean = node("ReduceMean", ["y"], ["output"], axes=[2, 3], keepdims=0)
    return graph([*nodes, mean], {"image": ("batch", 3, 16, 16)}, {"output": ("batch", 3)})


EXTREMES = [node("ReduceMax", ["image"], ["most"], keepdims=0), node("ReduceMin", ["image"], ["least"], keepdims=0)]
BY_THE_BATCH = {
    "the largest number": [*EXTREMES, node("Div", ["image", "most"], ["y"])],
    "the range": [
        *EXTREMES,
        node("Sub", ["most", "least"], ["range"]),
        node("Sub", ["image", "least"], ["above"]),
        node("Div", ["above", "range"], ["y"]),
    ],
}


@pytest.mark.parametrize("by", BY_THE_BATCH)
def test_a_dark_picture_is_not_scaled_by_a_bright_one_beside_it(tmp_path: Path, by: str) -> None:
    spec = described(tmp_path, scaled(*BY_THE_BATCH[by]), task="tensor")
    assert spec.batch == 1
    assert said(spec, "job 2 got other numbers"), "the brighter one gets what it gets alone"
