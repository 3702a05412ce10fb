"""`parallel-infer inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from parallel_infer.cli.inspect import command
from tests.families.tiny_graphs import CELLS, Dims, saved, tiny, zeros


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_text_says_all_that_matters(zoo: Path) -> None:
    result = run(zoo / "pose.onnx")
    assert result.exit_code == 0
    for expected in (
        "images float32 [3, 256, 256]",
        "output0 float32 [56, 6]",
        "keypoints",
        "yolov8",
        "metadata names the task",
        "letterbox to 256 x 256",
        "always 1; for any size: yolo export",
        "CPUExecutionProvider",
        "1: person",
        "warnings",
    ):
        assert expected in result.output


def test_json_is_one_object(zoo: Path) -> None:
    result = run(zoo / "detector.onnx", "--json")
    assert result.exit_code == 0
    report = json.loads(result.output)
    assert (report["task"], report["family"], report["batchable"], report["export"]) == ("detect", "yolov8", True, None)
    assert (report["name"], report["path"], report["classes"]) == ("detector", "detector.onnx", 80)
    assert report["inputs"] == [{"name": "images", "dtype": "float32", "shape": [3, 416, 416]}]
    assert "CPUExecutionProvider" in report["providers"]
    assert str(zoo) not in result.output


def test_options_reach_the_description(tmp_path: Path) -> None:
    dims: Dims = ("batch", 3, "h", "w")
    path = saved(tiny({"output0": zeros(9, CELLS)}, {"images": ("float32", dims)}), tmp_path)
    options = ["--task", "keypoints", "--kpt-shape", "2,2", "--imgsz", "32,64", "--mean", "1,2,3", "--std", "4"]
    options += ["--names", "cat", "--conf", "0.5", "--color", "bgr", "--resize", "stretch", "--pad", "0"]
    result = run(path, "--json", *options)
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    assert (report["task"], report["names"], report["parameters"]["kpt_shape"]) == ("keypoints", ["cat"], [2, 2])
    preprocess = report["preprocess"]
    assert (preprocess["height"], preprocess["width"], preprocess["mean"], preprocess["std"]) == (
        32,
        64,
        [1.0, 2.0, 3.0],
        [4.0, 4.0, 4.0],
    )
    assert (preprocess["color"], preprocess["resize"], preprocess["pad"]) == ("bgr", "stretch", 0)
    assert report["parameters"]["confidence"] == 0.5


def test_shapes_of_a_tensor_model(tmp_path: Path) -> None:
    path = saved(tiny({"y": zeros(3)}, {"a": ("int64", ("n", "length", 4))}), tmp_path)
    assert run(path).exit_code == 1
    result = run(path, "--shape", "a=7,4")
    assert result.exit_code == 0
    assert "a int64 [7, 4]" in result.output
    assert "none: tensors come ready" in result.output


def test_long_constants_are_shortened(tmp_path: Path) -> None:
    dims: Dims = ("b", 3, 64, 64)
    inputs: dict[str, tuple[str, Dims]] = {"pixel_values": ("float32", dims), "pixel_mask": ("int64", ("b", 8, 8))}
    result = run(saved(tiny({"logits": zeros(10, 5), "pred_boxes": zeros(10, 4)}, inputs), tmp_path))
    assert "pixel_mask = 1, 1, 1, 1, ... (64 values)" in result.output
    assert "4, without names" in result.output


def test_a_rejected_model_is_exit_code_1(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"")
    text, as_json = run(path), run(path, "--json")
    assert (text.exit_code, as_json.exit_code) == (1, 1)
    assert "rejected: broken.onnx is empty" in text.stderr
    assert json.loads(as_json.stdout) == {
        "error": "broken.onnx is empty; expected an ONNX model",
        "code": "MODEL_REJECTED",
    }


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--family", "yolov9", "did you mean yolov"),
        ("--imgsz", "3,x", "is not SIDE or HEIGHT,WIDTH"),
        ("--shape", "images=a", "is not INPUT=NUMBER"),
        ("--conf", "2", "conf"),
        ("--nonsense", "1", "No such option"),
    ],
)
def test_wrong_options_are_exit_code_2(zoo: Path, option: str, value: str, message: str) -> None:
    result = run(zoo / "pose.onnx", option, value)
    assert result.exit_code == 2
    assert message in result.stderr
