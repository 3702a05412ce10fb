"""How each model wants its pictures, its shapes and its batches; what the user may change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from parallel_infer.errors import ConfigError, ModelRejected
from parallel_infer.model_spec import ModelSpec
from stages.families import FAMILIES
from stages.preprocess import Preprocess
from stages.recognise import describe
from tests.families.tiny_graphs import CELLS, Array, Dims, boxes_up_to, names, saved, tiny, zeros

V8: dict[str, Array] = {"output0": zeros(84, CELLS)}
DETECT = {"task": "detect", "names": names(80)}
CLASSIFY = {"task": "classify", "names": names(10)}
DYNAMIC: Dims = ("batch", 3, "height", "width")


def images(dims: Dims, dtype: str = "float32") -> dict[str, tuple[str, Dims]]:
    return {"images": (dtype, dims)}


ZOO = {
    "detector": ("detect", "yolov8", 80, None, "stretch", (255.0,) * 3),
    "classifier": ("classify", "classifier", 1000, None, "crop", (128.0,) * 3),
    "pose": ("keypoints", "yolov8", 1, 1, "letterbox", (255.0,) * 3),
    "segmenter": ("segment", "yolov8", 1, None, "stretch", (255.0,) * 3),
}


@pytest.mark.parametrize(("name", "expected"), ZOO.items(), ids=ZOO)
def test_the_shipped_models(zoo: Path, name: str, expected: tuple[Any, ...]) -> None:
    spec = describe(name, zoo / f"{name}.onnx")
    preprocess = msgspec.convert(spec.preprocess, Preprocess)
    found = (spec.task, spec.family, len(spec.names), spec.batch, preprocess.resize, preprocess.std)
    assert found == expected
    assert spec.name == name
    assert bool(spec.warnings) == (name == "pose")
    assert (spec.inputs[0].shape) == (3, preprocess.height, preprocess.width)


def test_the_shipped_classifier_keeps_its_crop(zoo: Path) -> None:
    spec = describe("c", zoo / "classifier.onnx")
    assert (spec.preprocess["crop_fraction"], spec.preprocess["mean"]) == (0.875, (127.0,) * 3)
    assert (spec.parameters["softmax"], spec.parameters["confidence"]) == (False, 0.0)


def test_a_spec_survives_the_wire(zoo: Path) -> None:
    spec = describe("pose", zoo / "pose.onnx")
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=ModelSpec)
    assert msgspec.convert(again.preprocess, Preprocess) == msgspec.convert(spec.preprocess, Preprocess)
    assert (again.inputs, again.outputs, again.names) == (spec.inputs, spec.outputs, spec.names)


@pytest.mark.parametrize(
    ("outputs", "metadata", "expected"),
    [
        (V8, DETECT, ("letterbox", "rgb", 114, (0.0,) * 3, (255.0,) * 3)),
        ({"o": boxes_up_to(3.0, CELLS, 85)}, {}, ("letterbox-corner", "bgr", 114, (0.0,) * 3, (1.0,) * 3)),
        ({"o": zeros(300, 84)}, DETECT, ("stretch", "rgb", 114, (0.0,) * 3, (255.0,) * 3)),
        ({"o": zeros(10)}, CLASSIFY, ("crop", "rgb", 114, (0.0,) * 3, (255.0,) * 3)),
        ({"o": zeros(10)}, {}, ("crop", "rgb", 114, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))),
    ],
    ids=["yolov8", "yolox", "rtdetr", "classify of Ultralytics", "any classifier"],
)
def test_pictures_are_prepared_as_the_family_wants(
    tmp_path: Path, outputs: Any, metadata: dict[str, str], expected: tuple[Any, ...]
) -> None:
    preprocess = describe("m", saved(tiny(outputs, metadata=metadata), tmp_path)).preprocess
    assert tuple(preprocess[key] for key in ("resize", "color", "pad", "mean", "std")) == expected


FILTERS: list[tuple[dict[str, Array], dict[str, str], str]] = [
    (V8, DETECT, "linear"),  # Ultralytics' detectors use OpenCV
    ({"o": zeros(300, 84)}, DETECT, "linear"),
    ({"o": zeros(10)}, CLASSIFY, "bilinear"),  # but its classifiers use torchvision
    ({"o": zeros(10)}, {}, "bilinear"),
    ({"o": zeros(10)}, {**CLASSIFY, "crop_fraction": "0.9"}, "bicubic"),  # timm's
    ({"o": zeros(10)}, {**CLASSIFY, "filter": "linear"}, "linear"),
    ({"logits": zeros(20, 81), "pred_boxes": zeros(20, 4)}, {}, "bilinear"),
    ({"dets": zeros(20, 4), "labels": zeros(20, 80)}, {}, "bilinear"),
]


@pytest.mark.parametrize(("outputs", "metadata", "expected"), FILTERS)
def test_the_filter_is_part_of_the_recipe(
    tmp_path: Path, outputs: dict[str, Array], metadata: dict[str, str], expected: str
) -> None:
    assert describe("m", saved(tiny(outputs, metadata=metadata), tmp_path)).preprocess["filter"] == expected


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_dtypes_and_layouts_of_the_picture(tmp_path: Path, dtype: str, layout: str) -> None:
    dims: Dims = ("batch", 3, 48, 64) if layout == "nchw" else ("batch", 48, 64, 3)
    spec = describe("m", saved(tiny(V8, images(dims, dtype), DETECT), tmp_path))
    assert (spec.inputs[0].dtype, spec.inputs[0].shape) == (dtype, dims[1:])
    assert (spec.preprocess["layout"], spec.preprocess["height"], spec.preprocess["width"]) == (layout, 48, 64)
    assert spec.preprocess["std"] == ((1.0,) * 3 if dtype == "uint8" else (255.0,) * 3)


@pytest.mark.parametrize(
    ("metadata", "overrides", "size"),
    [
        ({**DETECT, "imgsz": "[32, 96]"}, {}, (32, 96)),
        ({**DETECT, "imgsz": "96"}, {}, (96, 96)),
        ({**DETECT, "imgsz": "[32, 96]"}, {"imgsz": [64, 32]}, (64, 32)),
        ({**DETECT, "imgsz": "[32, 96]"}, {"imgsz": 128}, (128, 128)),
        ({**DETECT, "imgsz": "[32, 96]"}, {"shapes": {"images": [3, 64, 32]}}, (64, 32)),
    ],
)
def test_size_of_a_graph_that_takes_any(
    tmp_path: Path, metadata: dict[str, str], overrides: dict[str, Any], size: tuple[int, int]
) -> None:
    spec = describe("m", saved(tiny(V8, images(DYNAMIC), metadata), tmp_path), overrides)
    assert (spec.preprocess["height"], spec.preprocess["width"]) == size == spec.inputs[0].shape[1:]
    assert spec.warnings == ()


def test_a_size_that_nobody_names_is_640_and_says_so(tmp_path: Path) -> None:
    spec = describe("m", saved(tiny(V8, images(DYNAMIC), DETECT), tmp_path))
    assert spec.inputs[0].shape == (3, 640, 640)
    assert any("set imgsz" in warning for warning in spec.warnings)


def test_a_fixed_size_wins_over_the_metadata(tmp_path: Path) -> None:
    spec = describe("m", saved(tiny(V8, metadata={**DETECT, "imgsz": "[640, 640]"}), tmp_path))
    assert (spec.preprocess["height"], spec.preprocess["width"]) == (64, 64)


OVERRIDES: list[tuple[dict[str, Any], str, Any]] = [
    ({"resize": "stretch"}, "resize", "stretch"),
    ({"color": "bgr"}, "color", "bgr"),
    ({"pad": 0}, "pad", 0),
    ({"mean": [1, 2, 3]}, "mean", (1.0, 2.0, 3.0)),
    ({"mean": 7, "std": 2.5}, "std", (2.5, 2.5, 2.5)),
    ({"crop_fraction": 0.5, "resize": "crop"}, "crop_fraction", 0.5),
    ({"filter": "bicubic"}, "filter", "bicubic"),
]


@pytest.mark.parametrize(("overrides", "key", "value"), OVERRIDES)
def test_the_user_changes_the_preprocessing(tmp_path: Path, overrides: dict[str, Any], key: str, value: Any) -> None:
    spec = describe("m", saved(tiny(V8, metadata=DETECT), tmp_path), overrides)
    assert spec.preprocess[key] == value


def test_the_user_changes_the_parameters(tmp_path: Path) -> None:
    path = saved(tiny(V8, metadata=DETECT), tmp_path)
    plain, changed = describe("m", path), describe("m", path, {"conf": 0.5, "iou": 0.6})
    assert (plain.parameters["confidence"], plain.parameters["iou"]) == (0.25, 0.45)
    assert (plain.parameters["nms"], plain.parameters["max_detections"]) == (False, 300)
    assert (changed.parameters["confidence"], changed.parameters["iou"]) == (0.5, 0.6)
    assert changed.warnings == ()


IDLE: list[tuple[dict[str, Any], dict[str, Array], dict[str, str], str]] = [
    ({"pad": 3, "resize": "stretch"}, V8, DETECT, "pad has no effect: resize is stretch"),
    ({"crop_fraction": 0.5}, V8, DETECT, "crop_fraction has no effect: resize is letterbox"),
    ({"background": 3}, V8, DETECT, "background has no effect: the family is yolov8"),
    ({"kpt_shape": [3, 3]}, V8, DETECT, "kpt_shape has no effect: the task is detect"),
    ({"multi_label": True}, V8, DETECT, "multi_label has no effect: the task is detect"),
    ({"iou": 0.5}, {"o": zeros(300, 6)}, {**DETECT, "end2end": "True"}, "iou has no effect: objects of end2end"),
    ({"conf": 0.5, "task": "tensor"}, V8, DETECT, "conf has no effect: tensors go in and out"),
    ({"names": ["a"]}, {"o": zeros(2, 3, 4, 5)}, {}, "names has no effect"),
]


@pytest.mark.parametrize(("overrides", "outputs", "metadata", "warning"), IDLE, ids=[str(row[0]) for row in IDLE])
def test_options_without_effect_are_reported(
    tmp_path: Path, overrides: dict[str, Any], outputs: dict[str, Array], metadata: dict[str, str], warning: str
) -> None:
    spec = describe("m", saved(tiny(outputs, metadata=metadata), tmp_path), overrides)
    assert any(warning in given for given in spec.warnings)


def test_mean_and_std_have_no_effect_on_uint8(tmp_path: Path) -> None:
    path = saved(tiny(V8, images(("b", 3, 64, 64), "uint8"), {**DETECT, "std": "[2, 2, 2]"}), tmp_path)
    spec = describe("m", path, {"mean": 5})
    assert (spec.preprocess["mean"], spec.preprocess["std"]) == ((0.0,) * 3, (1.0,) * 3)
    assert any("mean has no effect: the input takes uint8" in warning for warning in spec.warnings)


@pytest.mark.parametrize("given", [["a", "b"], ("a", "b"), "a, b", {0: "a", 1: "b"}, {"1": "b", "0": "a"}], ids=str)
def test_names_may_be_written_in_many_ways(tmp_path: Path, given: Any) -> None:
    spec = describe("m", saved(tiny({"output0": zeros(6, CELLS)}, metadata=DETECT), tmp_path), {"names": given})
    assert spec.names == ("a", "b")


def test_names_that_a_map_leaves_out_are_numbers(tmp_path: Path) -> None:
    metadata = {"task": "classify", "names": "{1: 'b', 3: 'd'}"}
    assert describe("m", saved(tiny({"o": zeros(4)}, metadata=metadata), tmp_path)).names == ("0", "b", "2", "d")


def test_the_user_names_the_family(tmp_path: Path) -> None:
    path = saved(tiny({"output": boxes_up_to(60.0, CELLS, 85)}), tmp_path)
    for family in ("yolov5", "yolox", "yolox-decoded"):
        assert describe("m", path, {"family": family}).family == family


def test_the_user_names_the_task(tmp_path: Path) -> None:
    path = saved(tiny({"output0": zeros(9, CELLS)}), tmp_path)
    assert describe("m", path, {"task": "obb"}).parameters["classes"] == 4
    assert describe("m", path, {"task": "pose", "kpt_shape": [2, 2]}).parameters["kpt_shape"] == [2, 2]
    assert describe("m", path, {"task": "tensor"}).family == "tensor"
    with pytest.raises(ModelRejected, match=r"task segment that was asked for: .*prototypes"):
        describe("m", path, {"task": "segment"})


def test_the_background_slot_of_rfdetr(tmp_path: Path) -> None:
    path = saved(tiny({"dets": zeros(10, 4), "labels": zeros(10, 91)}), tmp_path)
    assert describe("m", path, {"background": -1}).parameters["background"] == 90
    assert describe("m", path, {"background": 0}).parameters["background"] == 0
    with pytest.raises(ConfigError, match="background 91 is out of range: the model has 91"):
        describe("m", path, {"background": 91})


def test_softmax_only_where_rows_do_not_sum_to_one(tmp_path: Path) -> None:
    logits, shares = zeros(4) + 3.0, zeros(4) + 0.25
    assert describe("m", saved(tiny({"o": logits}, metadata=CLASSIFY), tmp_path)).parameters["softmax"] is True
    path = saved(tiny({"o": shares}, metadata=CLASSIFY), tmp_path)
    assert describe("m", path).parameters["softmax"] is False
    several = describe("m", path, {"multi_label": True}).parameters
    assert (several["multi_label"], several["softmax"], several["confidence"]) == (True, False, 0.25)


BAD_OVERRIDES: list[tuple[dict[str, Any], str]] = [
    ({"familly": "yolov8"}, "unknown model option 'familly'; did you mean family"),
    ({"zzz": 1}, "unknown model option 'zzz'; known: family, task"),
    ({"family": "yolov9"}, "unknown family 'yolov9'; did you mean yolov"),
    ({"task": "detection"}, "unknown task 'detection'; did you mean detect"),
    ({"resize": "letterbix"}, "did you mean letterbox"),
    ({"color": "rbg"}, "unknown color 'rbg'"),
    ({"conf": 1.5}, "conf: .*0 to 1"),
    ({"iou": "high"}, "iou: expected"),
    ({"imgsz": [640]}, "imgsz"),
    ({"imgsz": 0}, "imgsz"),
    ({"pad": 256}, "pad"),
    ({"mean": [1, 2]}, "mean"),
    ({"std": [0.229, 0.224, 0.225]}, "multiply both by 255"),
    ({"std": 0}, "std"),
    ({"names": []}, "names must be"),
    ({"names": {"x": "a"}}, "names must be"),
    ({"multi_label": "yes"}, "multi_label"),
    ({"shapes": {"nope": [1]}}, "the model has no input 'nope'; it has images"),
    ({"shapes": {"images": [3, 64]}}, "does not fit images"),
    ({"shapes": {"images": [3, 64, 65]}}, "does not fit images"),
    ({"imgsz": 32}, "is fixed to"),
    ({"conf": float("nan")}, "conf"),
    ({"std": float("inf")}, "finite"),
    ({"mean": float("inf")}, "finite"),
    ({"family": "yolov5", "task": "obb"}, "family yolov5 does not do the task obb; it does detect, segment"),
]


@pytest.mark.parametrize(("overrides", "message"), BAD_OVERRIDES, ids=lambda value: str(value)[:40])
def test_overrides_that_cannot_be_used(tmp_path: Path, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        describe("m", saved(tiny(V8, metadata=DETECT), tmp_path), overrides)


def test_overrides_that_are_none_change_nothing(tmp_path: Path) -> None:
    path = saved(tiny(V8, metadata=DETECT), tmp_path)
    assert describe("m", path, {"family": None, "names": None, "shapes": None}) == describe("m", path)


# Batches


# Tensors


def test_every_family_has_a_line_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    for family in FAMILIES:
        assert f"`{family}`" in text
