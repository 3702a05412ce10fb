"""Quantized copies: what they keep, how they are compared, what is refused, and that no half file is left."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

from parallel_infer.cli import main
from parallel_infer.errors import ConfigError, ModelRejected
from parallel_infer.inference.options import SessionConfig
from parallel_infer.machine.cores import split_cores, usable_cores
from parallel_infer.pipeline import load_pipeline
from parallel_infer.tools.quantize.agreement import Agreement
from parallel_infer.tools.quantize.quantizable import check_scales, kept_in_float
from parallel_infer.tools.quantize.quantization import as_served, quantize
from parallel_infer.tools.quantize.recipes import Recipe, Speed, Trial, best, check_worth

METADATA = {"task": "classify", "names": str({number: f"thing {number}" for number in range(10)}), "author": "somebody"}


def classifier(dtype: int = TensorProto.FLOAT, opset: int = 17, pad: float = 0.0) -> onnx.ModelProto:
    """images [batch, 3, 32, 32] -> Pad -> Conv -> Relu -> mean -> Gemm -> Softmax [batch, 10]."""
    random = np.random.default_rng(3)
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    weights = {
        "value": np.array(pad, kind),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
        "w": random.normal(0, 0.2, (32, 3, 3, 3)).astype(kind),
        "g": random.normal(0, 2, (32, 10)).astype(kind),
    }
    nodes = [
        helper.make_node("Pad", ["images", "pads", "value"], ["padded"], name="pad"),
        helper.make_node("MaxPool", ["padded"], ["pooled"], name="pool", kernel_shape=[3, 3]),
        helper.make_node("Conv", ["pooled", "w"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["a"], name="mean"),
        helper.make_node("Flatten", ["a"], ["f"], name="flat"),
        helper.make_node("MatMul", ["f", "g"], ["m"], name="product"),
        helper.make_node("Softmax", ["m"], ["scores"], name="softmax", axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("images", dtype, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info("scores", dtype, ["batch", 10])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    helper.set_model_props(model, METADATA)
    return model


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture
def payloads(pictures: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(pictures.glob("*.png"))]


def invoke(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_leaves_no_drafts(tmp_path: Path, pictures: Path, number: signal.Signals) -> None:
    model = saved(classifier(), tmp_path)
    folder = tmp_path / "copies"
    folder.mkdir()
    command = [sys.executable, "-m", "parallel_infer", "quantize", str(model), "--calibrate", str(pictures)]
    with subprocess.Popen([*command, "--output", str(folder / "copy.onnx")], stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list(folder.glob(".quantize-*")):
            pass
        process.send_signal(number)
    assert process.returncode == 128 + number
    assert not list(folder.iterdir())


@pytest.mark.parametrize("pad", [0.0, -np.inf])
def test_a_copy_keeps_metadata_and_answers(tmp_path: Path, payloads: list[bytes], pad: float) -> None:
    output = tmp_path / "copy.onnx"

    report = quantize(saved(classifier(pad=pad), tmp_path), [*payloads, b"no picture"], output, anyway=True)

    copy = onnx.load(output)
    assert {entry.key: entry.value for entry in copy.metadata_props} == METADATA
    assert any(tensor.data_type == TensorProto.INT8 for tensor in copy.graph.initializer)
    assert (report.pictures, report.skipped, report.failed) == (3, 1, {})
    assert report.pictures + report.views == report.agreement.pictures >= 20  # three say little about answers
    assert report.size_after == output.stat().st_size
    assert min(report.speed.before_ms, report.speed.after_ms) > 0
    assert report.agreement.share == 1.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.onnx", "model.onnx"]


def test_a_recipe_that_makes_no_copy_does_not_hinder_the_others(tmp_path: Path, pictures: Path) -> None:
    """A Pad with minus infinity has no histogram; only the recipe that puts everything into 8 bits wants one."""
    path = saved(classifier(pad=-np.inf), tmp_path)
    words = ["quantize", str(path), "--calibrate", str(pictures), "--output", str(tmp_path / "copy.onnx"), "--anyway"]

    result = invoke(*words, "--provider", "cpu", "--calibration", "percentile")

    assert result.exit_code == 0, result.output
    assert "recipe layers: " in result.stdout
    assert "recipe operators: no copy: ONNX Runtime cannot quantize" in result.stdout
    alone = invoke(*words, "--provider", "cpu", "--calibration", "percentile", "--recipe", "operators")
    assert (alone.exit_code, "not quantized: ONNX Runtime cannot quantize" in alone.stderr) == (1, True)


def test_copies_are_timed_as_they_will_be_served(tmp_path: Path) -> None:
    spec = load_pipeline().describe("m", saved(classifier(), tmp_path), {})
    found = as_served(spec, SessionConfig(provider="cpu"))
    assert found.provider == "cpu"
    assert found.threads == split_cores(usable_cores(), 1, 0).threads
    assert found.batches == (4,)
    assert found.rows == {"images": (3, 32, 32)}
    assert as_served(spec, SessionConfig(threads=3)).threads == 3
    assert as_served(replace(spec, batch=2), SessionConfig()).batches == ()


def test_what_stays_in_float() -> None:
    assert kept_in_float(classifier().graph) == ["softmax"]
    assert kept_in_float(classifier(pad=-np.inf).graph) == ["pad", "pool", "softmax"]


def without_layers() -> onnx.ModelProto:
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["images"], ["a"], name="mean"),
            helper.make_node("Flatten", ["a"], ["scores"], name="flat"),
        ],
        "mean",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"task": "classify"})
    return model


def of_a_vector() -> onnx.ModelProto:
    model = classifier()
    del model.metadata_props[:]
    helper.set_model_props(model, {"task": "embedding"})
    return model


def of_tensors() -> onnx.ModelProto:
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 5]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", tensors[:1], tensors[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (of_tensors(), "takes tensors, not pictures"),
        (of_a_vector(), "the task embedding"),
        (classifier(TensorProto.FLOAT16), "is float16; only float32"),
        (without_layers(), "no convolution or matrix product"),
    ],
)
def test_what_cannot_be_quantized_is_told(
    tmp_path: Path, payloads: list[bytes], model: onnx.ModelProto, said: str
) -> None:
    with pytest.raises(ModelRejected, match=said):
        quantize(saved(model, tmp_path), payloads, tmp_path / "copy.onnx")

    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_copy_is_not_quantized_again(tmp_path: Path, payloads: list[bytes]) -> None:
    quantize(saved(classifier(), tmp_path), payloads, tmp_path / "copy.onnx", anyway=True)

    with pytest.raises(ModelRejected, match="quantized already"):
        quantize(tmp_path / "copy.onnx", payloads, tmp_path / "again.onnx")

    assert not (tmp_path / "again.onnx").exists()


def test_without_a_readable_picture_an_older_copy_stays(tmp_path: Path) -> None:
    path, output = saved(classifier(), tmp_path), tmp_path / "copy.onnx"
    output.write_bytes(b"older")

    with pytest.raises(ConfigError, match="none of the calibration pictures"):
        quantize(path, [b"no picture"], output)

    assert output.read_bytes() == b"older"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["copy.onnx", "model.onnx"]


def test_scales_that_are_no_numbers_are_refused() -> None:
    node = helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"])
    for scale in (np.inf, np.nan, 0.0):
        tensor = numpy_helper.from_array(np.array(scale, np.float32), "scale")
        with pytest.raises(ModelRejected, match="no finite range"):
            check_scales(helper.make_graph([node], "g", [], [], [tensor]))


def test_command_reports_and_warns(tmp_path: Path, pictures: Path) -> None:
    path, output = saved(classifier(), tmp_path), tmp_path / "copy.onnx"
    folder = Path(shutil.copytree(pictures, tmp_path / "pictures"))
    (folder / "b.heic").write_bytes(b"of a phone")
    words = ["quantize", str(path), "--calibrate", str(folder), "--output", str(output), "--anyway"]

    result = invoke(*words, "--provider", "cpu", "--threads", "1", "--json")

    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["pictures"] == 3
    assert any("few" in warning for warning in report["warnings"])
    assert any(f"left out of {folder}" in warning and ".heic" in warning for warning in report["warnings"])
    assert [trial["recipe"] for trial in report["trials"]] == ["layers", "sums", "operators"]
    once = invoke(*words, "--provider", "cpu", "--recipe", "sums").stdout
    assert (once.count("before") >= 2, once.count("recipe "), "recipe sums: " in once) == (True, 1, True)


def test_command_refuses(tmp_path: Path, pictures: Path) -> None:
    path, empty = saved(of_tensors(), tmp_path), tmp_path / "empty"
    empty.mkdir()

    for words, code, said in (
        ([str(path), "--calibrate", str(pictures)], 1, "not quantized"),
        ([str(path), "--calibrate", str(empty)], 2, "no pictures"),
        ([str(path), "--calibrate", str(pictures), "--output", str(path)], 2, "would write over"),
        ([str(path), "--calibrate", str(pictures), "--output", str(tmp_path / "no" / "o.onnx")], 2, "no folder"),
        ([str(tmp_path / "none.onnx"), "--calibrate", str(pictures)], 2, "no file"),
    ):
        result = invoke("quantize", *words)
        assert (result.exit_code, said in result.stderr) == (code, True), result.output


def trial(recipe: Recipe, after_ms: float, share: float, task: str = "detect") -> Trial:
    speed = Speed(provider="p", provider_after="p", threads=1, batch=1, before_ms=10, after_ms=after_ms)
    return Trial(recipe=recipe.value, size=1, speed=speed, agreement=Agreement(task=task, pictures=3, share=share))


def test_the_fastest_copy_whose_answers_hold_is_taken() -> None:
    quick_and_wrong = trial(Recipe.OPERATORS, 2, 0.5)
    right, slower = trial(Recipe.LAYERS, 7, 0.95), trial(Recipe.SUMS, 8, 1.0)
    assert best([quick_and_wrong, right, slower]) is right
    check_worth(right)
    assert best([quick_and_wrong, trial(Recipe.LAYERS, 3, 0.8)]).recipe == "layers"


def test_a_copy_that_is_slower_or_answers_otherwise_is_refused_by_name() -> None:
    with pytest.raises(ModelRejected, match=r"recipe layers\) takes 12.0 ms where the model takes 10.0 ms .*--anyway"):
        check_worth(trial(Recipe.LAYERS, 12, 1.0))
    with pytest.raises(ModelRejected, match=r"agreement 94.0% at best \(recipe sums\), at least 95% .*--anyway"):
        check_worth(trial(Recipe.SUMS, 5, 0.94, "classify"))


def test_recipes_round_what_they_say(tmp_path: Path, payloads: list[bytes]) -> None:
    """A convolution before SiLU: its output stays as it is, so that both are computed together."""
    path, counts = saved(classifier(), tmp_path), {}
    for recipe in Recipe:
        output = tmp_path / f"{recipe.value}.onnx"
        quantize(path, payloads, output, recipes=[recipe], anyway=True)
        counts[recipe] = sum(node.op_type == "QuantizeLinear" for node in onnx.load(output).graph.node)
    assert counts[Recipe.LAYERS] == 2  # what the convolution and the product read
    assert counts[Recipe.LAYERS] <= counts[Recipe.SUMS] < counts[Recipe.OPERATORS]
