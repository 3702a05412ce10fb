"""A model rewritten to take uint8 pixels answers as the original does with normalised floats."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from parallel_infer.errors import ModelRejected
from stages.graph import Refused, Rewritten, with_uint8_input
from stages.preprocess import Preprocess, Preprocessor
from tests.pictures.picture_samples import photo

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
WEIGHTS = np.random.default_rng(1).normal(size=(4, 3, 1, 1)).astype(np.float32)


def wish(**others) -> Preprocess:
    return Preprocess(**({"input": "images", "width": 8, "height": 6, "mean": MEAN, "std": STD} | others))


def tiny(
    shape=("N", 3, 6, 8), kind=TensorProto.FLOAT, nodes=None, weights=WEIGHTS, opset=13, inputs=(), outputs=("y",)
):
    """A 1x1 convolution, or whatever `nodes` are, over `images`."""
    weights = numpy_helper.from_array(weights.astype(helper.tensor_dtype_to_np_dtype(kind)), "w")
    graph = helper.make_graph(
        nodes or [helper.make_node("Conv", ["images", "w"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("images", kind, shape), *inputs],
        [helper.make_tensor_value_info(name, kind, [None] * 4) for name in outputs],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    helper.set_model_props(model, {"task": "detect", "names": "{0: 'cup'}"})
    return model


def saved(model, folder, **how):
    onnx.save(model, folder / "model.onnx", **how)
    return folder / "model.onnx"


def run(model, **feeds):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    source = model if isinstance(model, bytes) else str(model)
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def rows(preprocess, dtype, layout, count=2):
    preprocessor = Preprocessor(preprocess, dtype, layout)
    batch = np.empty((count, *preprocessor.shape), dtype)
    for index in range(count):
        preprocessor.write(photo(80 + index, 60), batch[index])
    return batch


def assert_equal_answers(path, preprocess, dtype="float32", count=2, **feeds):
    rewritten = with_uint8_input(path, preprocess)
    assert isinstance(rewritten, Rewritten), rewritten
    onnx.checker.check_model(onnx.load_from_string(rewritten.model), full_check=True)
    plain = run(path, images=rows(preprocess, dtype, preprocess.layout, count), **feeds)
    small = run(rewritten.model, images=rows(preprocess, "uint8", "nhwc", count), **feeds)
    for before, after in zip(plain, small, strict=True):
        assert before.dtype == after.dtype
        # ONNX Runtime may leave out the rounding to float16 in between, so there the last bit of it is open.
        within = 1e-3 if dtype == "float16" else 1e-4
        assert np.abs(before.astype(float) - after).max() <= within * max(1.0, np.abs(before.astype(float)).max())
    return onnx.load_from_string(rewritten.model)


@pytest.mark.parametrize("name", ["detector", "classifier", "segmenter", "pose"])
def test_the_zoo(zoo, name):
    path = zoo / f"{name}.onnx"
    shape = onnx.load(path).graph.input[0].type.tensor_type.shape.dim
    preprocess = wish(height=shape[2].dim_value, width=shape[3].dim_value)
    assert_equal_answers(path, preprocess, count=shape[0].dim_value or 2)


@pytest.mark.parametrize(
    "numbers",
    [
        {},
        {"mean": (0.0, 0.0, 0.0)},
        {"std": (1.0, 1.0, 1.0)},
        {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
        {"mean": (0.0, 0.0, 0.0), "std": (255.0, 255.0, 255.0), "color": "bgr"},
    ],
)
def test_every_normalisation(tmp_path, numbers):
    model = assert_equal_answers(saved(tiny(), tmp_path), wish(**numbers))
    operators = [node.op_type for node in model.graph.node]
    assert ("Sub" in operators) == (numbers.get("mean", MEAN) != (0, 0, 0))
    assert ("Div" in operators) == (numbers.get("std", STD) != (1, 1, 1))


def test_only_dtype_and_shape_of_the_input_change(tmp_path):
    before = tiny()
    model = assert_equal_answers(saved(before, tmp_path), wish())
    assert model.metadata_props == before.metadata_props
    assert model.opset_import == before.opset_import
    assert model.graph.output == before.graph.output
    (value,) = model.graph.input
    assert value.name == "images"
    assert value.type.tensor_type.elem_type == TensorProto.UINT8
    assert [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] == ["N", 6, 8, 3]


def test_float16_graphs(tmp_path):
    assert_equal_answers(saved(tiny(kind=TensorProto.FLOAT16), tmp_path), wish(), "float16")


def test_nhwc_graphs(tmp_path):
    nodes = [
        helper.make_node("Transpose", ["images"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w"], ["y"]),
    ]
    model = tiny(shape=("N", 6, 8, 3), nodes=nodes)
    assert_equal_answers(saved(model, tmp_path), wish(layout="nhwc"))


def test_a_fixed_batch_stays_fixed(tmp_path):
    model = assert_equal_answers(saved(tiny(shape=(2, 3, 6, 8)), tmp_path), wish())
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2


def test_free_sizes_become_those_of_the_rows(tmp_path):
    model = assert_equal_answers(saved(tiny(shape=("N", 3, "H", "W")), tmp_path), wish())
    assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [0, 6, 8, 3]


@pytest.mark.parametrize("opset", [7, 9, 13, 18, 21])
def test_old_and_new_operator_sets(tmp_path, opset):
    model = tiny(opset=opset)
    model.ir_version = 10 if opset > 18 else 4
    assert_equal_answers(saved(model, tmp_path), wish())


def test_other_inputs_stay(tmp_path):
    nodes = [helper.make_node("Conv", ["images", "w"], ["c"]), helper.make_node("Mul", ["c", "gain"], ["y"])]
    inputs = [helper.make_tensor_value_info("gain", TensorProto.FLOAT, [1])]
    path = saved(tiny(nodes=nodes, inputs=inputs), tmp_path)
    model = assert_equal_answers(path, wish(), gain=np.array([3], np.float32))
    assert [value.name for value in model.graph.input] == ["images", "gain"]


def test_every_reader_gets_the_normalised_input_also_in_subgraphs(tmp_path):
    def branch(operator):
        output = helper.make_tensor_value_info(f"{operator}_out", TensorProto.FLOAT, [None] * 4)
        node = helper.make_node(operator, ["images"], [f"{operator}_out"])
        return helper.make_graph([node], operator, [], [output])

    nodes = [
        helper.make_node("If", ["flag"], ["picked"], then_branch=branch("Neg"), else_branch=branch("Exp")),
        helper.make_node("Add", ["picked", "images"], ["both"]),
        helper.make_node("Conv", ["both", "w"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("flag", TensorProto.BOOL, [])]
    path = saved(tiny(nodes=nodes, inputs=inputs), tmp_path)
    for flag in (True, False):
        assert_equal_answers(path, wish(), flag=np.array(flag))


def test_names_that_are_taken_are_left_alone(tmp_path):
    nodes = [
        helper.make_node("Neg", ["images"], ["images/cast"], name="images/sub"),
        helper.make_node("Conv", ["images/cast", "w"], ["y"], name="images/mean"),
    ]
    assert_equal_answers(saved(tiny(nodes=nodes), tmp_path), wish())


def test_weights_beside_the_file_come_along(tmp_path):
    path = saved(tiny(), tmp_path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").stat().st_size > 0
    rewritten = with_uint8_input(path, wish())
    assert isinstance(rewritten, Rewritten)
    assert_equal_answers(path, wish())
    (tmp_path / "weights.bin").unlink()
    assert run(rewritten.model, images=rows(wish(), "uint8", "nhwc"))[0].shape == (2, 4, 6, 8)
    with pytest.raises(ModelRejected, match="weights beside the model file"):
        with_uint8_input(path, wish())


def test_weights_outside_of_the_folder_are_not_read(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    path = saved(tiny(), inside, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (inside / "weights.bin").rename(tmp_path / "weights.bin")
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = "../weights.bin"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelRejected, match="weights"):
        with_uint8_input(path, wish())


@pytest.mark.parametrize(
    ("model", "preprocess", "reason"),
    [
        (tiny(), wish(input="other"), "no input other"),
        (tiny(shape=("N", 3, 6, 9)), wish(), r"\['N', 3, 6, 9\], not NCHW with H, W, C = \[6, 8, 3\]"),
        (tiny(shape=("N", 6, 8, 3)), wish(), "not NCHW"),
        (tiny(shape=("N", 3, 48)), wish(), "four dimensions"),
        (tiny(shape=None), wish(), "four dimensions"),
        (tiny(opset=6), wish(), "operator set 6"),
        (tiny(outputs=("y", "images")), wish(), "also an output"),
        (tiny(nodes=[helper.make_node("Neg", ["w"], ["y"])]), wish(), "nothing in the graph reads"),
    ],
)
def test_refusals(tmp_path, model, preprocess, reason):
    refused = with_uint8_input(saved(model, tmp_path), preprocess)
    assert isinstance(refused, Refused)
    assert re.search(reason, refused.reason), refused.reason


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.DOUBLE, TensorProto.INT64])
def test_other_dtypes_are_refused(tmp_path, kind):
    nodes = [helper.make_node("Identity", ["images"], ["y"])]
    refused = with_uint8_input(saved(tiny(kind=kind, nodes=nodes), tmp_path), wish())
    assert isinstance(refused, Refused)
    assert "neither float nor float16" in refused.reason


def test_an_input_with_a_default_is_refused(tmp_path):
    model = tiny(shape=(1, 3, 6, 8))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 3, 6, 8), np.float32), "images"))
    assert with_uint8_input(saved(model, tmp_path), wish()) == Refused("the input images has a default value")


@pytest.mark.parametrize("content", [b"", b"no model", bytes(1000)])
def test_what_is_no_model(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelRejected):
        with_uint8_input(path, wish())


def test_a_missing_file(tmp_path):
    with pytest.raises(ModelRejected) as raised:
        with_uint8_input(tmp_path / "none.onnx", wish())
    assert str(tmp_path) not in str(raised.value)
