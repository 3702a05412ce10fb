"""Which family and task each kind of export is taken for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from parallel_infer.errors import ModelRejected
from parallel_infer.model_spec import ModelSpec
from stages.families import FAMILIES
from stages.geometry import Geometry
from stages.pipeline import task_for
from stages.preprocess import Preprocess, Preprocessor, constants
from stages.recognise import describe
from tests.families.tiny_graphs import CELLS, Array, boxes_up_to, names, saved, tiny, zeros

IMAGENET_MEAN = (123.675, 116.28, 103.53)


def ultralytics(task: str, count: int = 80, **further: Any) -> dict[str, str]:
    return {"task": task, "names": names(count), "imgsz": "[64, 64]"} | {k: str(v) for k, v in further.items()}


def spec_of(
    folder: Path,
    outputs: Mapping[str, Array],
    metadata: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    **graph: Any,
) -> ModelSpec:
    return describe("m", saved(tiny(outputs, metadata=metadata, **graph), folder), overrides or {})


PROTOTYPES: dict[str, Array] = {"output1": zeros(32, 16, 16)}
BY_METADATA: dict[str, tuple[dict[str, str], dict[str, Array], str, str]] = {
    "v8 detect": (ultralytics("detect"), {"output0": zeros(84, CELLS)}, "detect", "yolov8"),
    "v8 two classes": (ultralytics("detect", 2), {"output0": zeros(6, CELLS)}, "detect", "yolov8"),
    "v8 segment": (ultralytics("segment"), {"output0": zeros(116, CELLS), **PROTOTYPES}, "segment", "yolov8"),
    "v8 pose": (ultralytics("pose", 1, kpt_shape=[17, 3]), {"output0": zeros(56, CELLS)}, "keypoints", "yolov8"),
    "v8 pose 2d": (ultralytics("pose", 1, kpt_shape=[4, 2]), {"output0": zeros(13, CELLS)}, "keypoints", "yolov8"),
    "v8 obb": (ultralytics("obb"), {"output0": zeros(85, CELLS)}, "obb", "yolov8"),
    "classify": (ultralytics("classify", 10), {"output0": zeros(10)}, "classify", "classifier"),
    "v10 older": (ultralytics("detect", end2end=True), {"output0": zeros(300, 6)}, "detect", "end2end"),
    "v10 not end to end": (ultralytics("detect", end2end=False), {"output0": zeros(84, CELLS)}, "detect", "yolov8"),
    "26 segment": (
        ultralytics("segment", end2end=True),
        {"output0": zeros(300, 38), **PROTOTYPES},
        "segment",
        "end2end",
    ),
    "26 pose": (
        ultralytics("pose", 1, end2end=True, kpt_shape=[17, 3]),
        {"output0": zeros(300, 57)},
        "keypoints",
        "end2end",
    ),
    "26 obb": (ultralytics("obb", end2end=True), {"output0": zeros(300, 7)}, "obb", "end2end"),
    "nms": (ultralytics("detect", args={"nms": True}), {"output0": zeros(300, 6)}, "detect", "end2end"),
    "rtdetr older": (ultralytics("detect"), {"output0": zeros(300, 84)}, "detect", "rtdetr-ultralytics"),
    "rtdetr newer": (
        ultralytics("detect", head="RTDETRDecoder"),
        {"output0": zeros(300, 6)},
        "detect",
        "rtdetr-ultralytics-end2end",
    ),
    "rtdetr older, two classes": (
        ultralytics("detect", 2, description="Ultralytics rtdetr-l model"),
        {"output0": zeros(300, 6)},
        "detect",
        "rtdetr-ultralytics",
    ),
    "rtdetr newer, two classes": (
        ultralytics("detect", 2, head="RTDETRDecoder"),
        {"output0": zeros(300, 6)},
        "detect",
        "rtdetr-ultralytics-end2end",
    ),
    "rtdetr older, two classes, not named": (
        ultralytics("detect", 2),
        {"output0": boxes_up_to(0.9, 300, 6)},
        "detect",
        "rtdetr-ultralytics",
    ),
    "yolov5 says names only": (
        {"names": names(80), "stride": "32"},
        {"output0": zeros(3 * CELLS, 85)},
        "detect",
        "yolov5",
    ),
    "yolov5 segment": (
        {"names": names(80), "stride": "32"},
        {"output0": zeros(3 * CELLS, 117), **PROTOTYPES},
        "segment",
        "yolov5",
    ),
}


@pytest.mark.parametrize(("metadata", "outputs", "task", "family"), BY_METADATA.values(), ids=BY_METADATA)
def test_metadata_decides_without_a_warning(
    tmp_path: Path, metadata: dict[str, str], outputs: dict[str, Array], task: str, family: str
) -> None:
    spec = spec_of(tmp_path, outputs, metadata)
    assert (spec.task, spec.family, spec.warnings) == (task, family, ())
    assert spec.evidence
    assert spec.batch is None
    assert [output.shape for output in spec.outputs] == [array.shape for array in outputs.values()]
    assert spec.parameters["classes"] in (0, len(spec.names))


def decoded_rows(rows: int) -> Array:
    table = boxes_up_to(60.0, rows, 85)
    table[:, 4] = 0.5
    return table


def yolov6_rows() -> Array:
    table = boxes_up_to(60.0, CELLS, 85)
    table[:, 4] = 1.0
    return table


BY_SHAPE: dict[str, tuple[dict[str, Array], str, str]] = {
    "channels first": ({"output0": zeros(20, CELLS)}, "detect", "yolov8"),
    "channels first with prototypes": ({"output0": zeros(40, CELLS), **PROTOTYPES}, "segment", "yolov8"),
    "yolov7": ({"output": zeros(3 * CELLS, 85)}, "detect", "yolov5"),
    "yolov5 with its three heads": (
        {"output0": zeros(3 * CELLS, 85), "a": zeros(3, 8, 8, 85), "b": zeros(3, 4, 4, 85)},
        "detect",
        "yolov5",
    ),
    "yolov5 p6": ({"output0": zeros(3 * (CELLS + 1), 85)}, "detect", "yolov5"),
    "yolox": ({"output": boxes_up_to(3.0, CELLS, 85)}, "detect", "yolox"),
    "yolox decoded": ({"output": decoded_rows(CELLS)}, "detect", "yolox-decoded"),
    "yolov6": ({"outputs": yolov6_rows()}, "detect", "yolov5"),
    "ready objects in pixels": ({"output0": boxes_up_to(60.0, 300, 6)}, "detect", "end2end"),
    "ready objects as fractions": ({"output0": boxes_up_to(0.9, 300, 6)}, "detect", "rtdetr-ultralytics-end2end"),
    "ready objects, none found": ({"output0": zeros(300, 6)}, "detect", "end2end"),
    "ready rotated objects": ({"output0": boxes_up_to(60.0, 300, 7)}, "obb", "end2end"),
    "ready objects with masks": ({"output0": boxes_up_to(60.0, 300, 38), **PROTOTYPES}, "segment", "end2end"),
    "class scores": ({"logits": zeros(10)}, "classify", "classifier"),
    "class scores [nc, 1, 1]": ({"softmaxout": zeros(10, 1, 1)}, "classify", "classifier"),
}


@pytest.mark.parametrize(("outputs", "task", "family"), BY_SHAPE.values(), ids=BY_SHAPE)
def test_shapes_decide_where_nothing_else_does(
    tmp_path: Path, outputs: dict[str, Array], task: str, family: str
) -> None:
    spec = spec_of(tmp_path, outputs)
    assert (spec.task, spec.family) == (task, family)
    if family != "yolov5":
        assert any("set family" in warning or "set task" in warning for warning in spec.warnings)
    assert any("no class names" in warning for warning in spec.warnings)


def test_names_tell_tasks_apart_that_shapes_do_not(tmp_path: Path) -> None:
    keypoints = spec_of(tmp_path, {"output0": zeros(56, CELLS)}, {"names": names(1)})
    rotated = spec_of(tmp_path, {"output0": zeros(20, CELLS)}, {"names": names(15)})
    assert (keypoints.task, rotated.task) == ("keypoints", "obb")


RTDETR_OUTPUTS: dict[str, Array] = {"labels": np.zeros(300, np.int64), "boxes": zeros(300, 4), "scores": zeros(300)}


def test_rtdetr_is_told_the_size_of_its_row(tmp_path: Path) -> None:
    inputs = {"images": ("float32", ("N", 3, 48, 64)), "orig_target_sizes": ("int64", ("N", 2))}
    spec = spec_of(tmp_path, RTDETR_OUTPUTS, inputs=inputs)
    assert (spec.task, spec.family) == ("detect", "rtdetr")
    assert spec.preprocess["constants"] == {"orig_target_sizes": [64.0, 48.0]}
    assert spec.preprocess["resize"] == "stretch"
    assert [tensor.shape for tensor in spec.inputs] == [(3, 48, 64), (2,)]
    further = constants(msgspec.convert(spec.preprocess, Preprocess), spec.inputs)
    assert {name: array.tolist() for name, array in further.items()} == {"orig_target_sizes": [64, 48]}


def test_ready_objects_that_the_metadata_does_not_announce(tmp_path: Path) -> None:
    for count in (2, 80):
        spec = spec_of(tmp_path, {"output0": boxes_up_to(60.0, 300, 6)}, ultralytics("detect", count))
        assert spec.family == "end2end"
        assert any("boxes are taken as pixels" in warning for warning in spec.warnings)
    spec = spec_of(tmp_path, {"output0": zeros(300, 6)}, ultralytics("detect", end2end=False))
    assert any("metadata says end2end False" in warning for warning in spec.warnings)


@pytest.mark.parametrize("masks", [False, True])
def test_rfdetr(tmp_path: Path, masks: bool) -> None:
    outputs = {"dets": zeros(100, 4), "labels": zeros(100, 91)} | ({"masks": zeros(100, 16, 16)} if masks else {})
    spec = spec_of(tmp_path, outputs, inputs={"input": ("float32", ("batch", 3, 64, 64))})
    assert (spec.task, spec.family) == ("segment" if masks else "detect", "rfdetr")
    assert spec.preprocess["mean"] == IMAGENET_MEAN
    assert spec.preprocess["resize"] == "stretch"
    assert (spec.parameters["normalised"], spec.parameters["background"]) == (True, None)


def test_detr_with_a_pixel_mask(tmp_path: Path) -> None:
    inputs = {"pixel_values": ("float32", ("b", "c", "h", "w")), "pixel_mask": ("int64", ("b", "mh", "mw"))}
    outputs = {"logits": zeros(100, 92), "pred_boxes": zeros(100, 4)}
    spec = spec_of(tmp_path, outputs, overrides={"imgsz": [96, 128]}, inputs=inputs)
    assert (spec.task, spec.family) == ("detect", "detr")
    assert (spec.preprocess["height"], spec.preprocess["width"]) == (96, 128)
    assert spec.inputs[0].shape == (3, 96, 128)
    assert set(spec.preprocess["constants"]["pixel_mask"]) == {1.0}
    assert len(spec.preprocess["constants"]["pixel_mask"]) == np.prod(spec.inputs[1].shape)
    inputs["pixel_mask"] = ("int64", ("b", "h", "w"))
    spec = spec_of(tmp_path, outputs, overrides={"imgsz": [96, 128]}, inputs=inputs)
    assert spec.inputs[1].shape == (96, 128)
    assert (spec.parameters["background"], spec.parameters["softmax"]) == (91, True)


@pytest.mark.parametrize(
    "outputs",
    [{"a": zeros(7, 5, 3)}, {"a": zeros(10), "b": zeros(12)}, {"a": zeros(84, 200), "b": zeros(84, 200)}],
    ids=["three dimensions", "two rows of scores", "two tables"],
)
def test_unknown_outputs_are_served_as_tensors(tmp_path: Path, outputs: dict[str, Array]) -> None:
    spec = spec_of(tmp_path, outputs)
    assert (spec.task, spec.family, spec.parameters) == ("tensor", "tensor", {})
    assert spec.preprocess["resize"] == "stretch"
    assert any("set resize, color, mean, std" in warning for warning in spec.warnings)
    assert any("raw output tensors" in warning and "set family" in warning for warning in spec.warnings)


def test_a_task_without_decoder_is_served_as_tensors(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, {"output0": zeros(64, 64)}, {"task": "flow"})
    assert spec.task == "tensor"
    assert "'flow'" in spec.warnings[0]


def test_names_that_do_not_fit_the_outputs_are_reported(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, {"output0": zeros(24, CELLS)}, ultralytics("detect", 3))
    assert (spec.family, spec.parameters["classes"]) == ("yolov8", 20)
    assert any("3 class names for 20 classes" in warning for warning in spec.warnings)


def test_metadata_that_makes_no_sense_is_reported_and_never_run(tmp_path: Path) -> None:
    metadata = {"task": "detect", "names": "__import__('os')", "imgsz": "[1" * 5000, "args": "{", "end2end": "3"}
    metadata |= {"kpt_shape": "[1e999, 2]", "mean": f"[1{'0' * 400}, 1, 1]", "std": "[1, 0, 1]", "resize": "zoom"}
    spec = spec_of(tmp_path, {"output0": zeros(80, CELLS)}, metadata)
    assert spec.family == "yolov8"
    for key in metadata.keys() - {"task"}:
        assert any(repr(key) in warning for warning in spec.warnings)


def test_every_family_can_be_asked_for_and_says_what_it_expects(tmp_path: Path) -> None:
    """An output that no decoder takes is refused by every family but tensor, which takes all."""
    path = saved(tiny({"strange": zeros(2, 3, 4, 5)}), tmp_path)
    for family in FAMILIES.keys() - {"tensor"}:
        with pytest.raises(ModelRejected, match=r"strange \[2, 3, 4, 5\]; expected"):
            describe("m", path, {"family": family})
    assert describe("m", path, {"family": "tensor"}).task == "tensor"


def test_names_can_always_be_written(tmp_path: Path) -> None:
    """A Python literal may hold half a surrogate pair, which no UTF-8 can."""
    spec = spec_of(tmp_path, {"output0": zeros(5, CELLS)}, {"task": "detect", "names": r"['\ud800']"})
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=ModelSpec).names == ("?",)


DECODED: list[tuple[dict[str, str], dict[str, Array]]] = [
    (metadata, outputs) for metadata, outputs, _, _ in BY_METADATA.values()
]
DECODED += [({}, outputs) for outputs, _, _ in BY_SHAPE.values()]


@pytest.mark.parametrize(("metadata", "outputs"), DECODED, ids=[*BY_METADATA, *BY_SHAPE])
def test_what_is_recognised_can_be_fed_and_decoded(
    tmp_path: Path, metadata: dict[str, str], outputs: dict[str, Array]
) -> None:
    spec = spec_of(tmp_path, outputs, metadata)
    task = task_for(spec)
    answer = task.answer(outputs, Geometry(64, 64, 1, 1, 0, 0), task.options(b""))
    assert "scores" in answer
    preprocess = msgspec.convert(spec.preprocess, Preprocess)
    row = np.empty(spec.inputs[0].shape, spec.inputs[0].dtype)
    Preprocessor(preprocess, spec.inputs[0].dtype, preprocess.layout).write(np.zeros((48, 80, 3), np.uint8), row)
    assert np.isfinite(row).all()
