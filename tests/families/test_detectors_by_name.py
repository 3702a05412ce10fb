"""Detectors of other makers: from the file to objects in pixels of the picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parallel_infer.model_spec import ModelSpec
from stages.recognise import describe
from tests.families.served import answer_of
from tests.families.tiny_graphs import CELLS, PICTURE, Array, Dims, names, saved, tiny, zeros

FRAME = np.full((128, 128, 3), 90, np.uint8)  # twice the row of 64 x 64
BOX = (10.0, 12.0, 50.0, 44.0)  # in the row
FOUND = [[20.0, 24.0, 100.0, 88.0]]  # the same in the picture


def placed(rows: int, place: int, values: Any, other: Any = 0.0) -> Array:
    """[rows, len(values)] with `values` at one place and `other` elsewhere."""
    values = np.atleast_1d(np.asarray(values, np.float32))
    table = np.broadcast_to(np.asarray(other, np.float32), (rows, len(values))).copy()
    table[place] = values
    return table


def efficient(count: Any, classes: Any, prefix: str = "det_", number: str = "num_dets") -> dict[str, Array]:
    """Nine rows that are no objects hold what was in memory before."""
    return {
        number: np.asarray(count),
        f"{prefix}boxes": placed(10, 0, BOX, 7.0),
        f"{prefix}scores": placed(10, 0, 0.9, 0.99)[:, 0],
        f"{prefix}classes": np.asarray(classes),
    }


FRACTIONS = np.array(BOX) / 64
CENTRED = [(FRACTIONS[0] + FRACTIONS[2]) / 2, (FRACTIONS[1] + FRACTIONS[3]) / 2, 40 / 64, 32 / 64]
LOGITS = placed(20, 0, [-5.0, -5.0, 2.1972246], [-4.0, -4.5, -5.0])  # sigmoid 0.9
DISTRIBUTION = np.where(np.eye(8, dtype=bool)[2], 30.0, 0.0)  # two strides to every side
NANODET = placed(CELLS, 27, [0.02, 0.01, 0.9, *[*DISTRIBUTION] * 4], [0.01] * 3 + [0.0] * 32)
CASES: dict[str, tuple[str, Mapping[str, Array]]] = {
    "EfficientNMS": ("efficient-nms", efficient(np.array([1], np.int32), np.full(10, 2, np.int32))),
    "YOLO-NAS": (
        "efficient-nms",
        efficient(np.array([1], np.int64), np.full(10, 2, np.int64), "graph2_pred_", "graph2_num_predictions"),
    ),
    "classes in floats": ("efficient-nms", efficient(np.array([1], np.int32), np.full(10, 2, np.float32))),
    "a count without dimensions": ("efficient-nms", efficient(np.array(1, np.int32), np.full(10, 2, np.int32))),
    "MMDeploy": ("mmdeploy", {"dets": placed(10, 0, [*BOX, 0.9]), "labels": np.full(10, 2, np.int64)}),
    "RT-DETR of Hugging Face": ("rtdetr-hf", {"logits": LOGITS, "pred_boxes": placed(20, 0, CENTRED, 0.1)}),
    "YOLO-NAS before suppression": (
        "boxes-scores",
        {"904": placed(CELLS, 3, BOX, [1, 1, 2, 2]), "913": placed(CELLS, 3, [0.01, 0.02, 0.9], 0.001)},
    ),
    "PP-YOLOE": (
        "boxes-scores",
        {"b": placed(CELLS, 3, BOX, [1, 1, 2, 2]), "s": placed(CELLS, 3, [0.01, 0.02, 0.9], 0.001).T},
    ),
    "YOLOv4": (
        "boxes-scores",
        {"boxes": placed(CELLS, 3, FRACTIONS, 0.1)[:, None], "confs": placed(CELLS, 3, [0.01, 0.02, 0.9], 0.001)},
    ),
    "NanoDet": ("nanodet", {"output": NANODET}),
}


def described(folder: Path, outputs: Mapping[str, Array], overrides: Any = None, **graph: Any) -> ModelSpec:
    return describe("m", saved(tiny(outputs, **graph), folder), overrides or {})


@pytest.mark.parametrize("case", CASES)
def test_an_object_is_where_the_picture_has_it(tmp_path: Path, case: str) -> None:
    family, outputs = CASES[case]
    spec = described(tmp_path, outputs)
    assert (spec.family, spec.task, spec.batch) == (family, "detect", None)
    assert any("set " in warning for warning in spec.warnings), "what is guessed is said"
    answer = answer_of(spec, FRAME)
    # NanoDet: the middle of cell 27 is (28, 28), and two strides of 8 to every side.
    expected = [[24.0, 24.0, 88.0, 88.0]] if case == "NanoDet" else FOUND
    np.testing.assert_allclose(answer["boxes"], expected, atol=1e-3)
    np.testing.assert_allclose(answer["scores"], [0.9], atol=1e-3)
    assert answer["classes"].tolist() == [2]


def test_one_job_at_a_time_is_enough(tmp_path: Path) -> None:
    spec = described(tmp_path, CASES["EfficientNMS"][1], inputs={"images": ("float32", (1, 3, 64, 64))}, batch=1)
    assert spec.batch == 1
    np.testing.assert_allclose(answer_of(spec, FRAME)["boxes"], FOUND)


def test_ultraface_finds_faces(tmp_path: Path) -> None:
    outputs = {"boxes": placed(CELLS, 3, FRACTIONS, [0.01, 0.01, 0.02, 0.02]), "scores": placed(CELLS, 3, [0.1, 0.9])}
    spec = described(tmp_path, outputs)
    assert (spec.family, spec.names, spec.preprocess["mean"]) == ("ultraface", ("face",), (127.0,) * 3)
    answer = answer_of(spec, FRAME)
    np.testing.assert_allclose(answer["boxes"], FOUND, atol=1e-3)
    assert answer["classes"].tolist() == [0]


@pytest.mark.parametrize("family", ["rtdetr-hf", "detr"])
def test_the_number_of_names_tells_whether_a_slot_means_nothing(tmp_path: Path, family: str) -> None:
    logits = placed(20, 0, [-5.0, -5.0, 2.0, -5.0], [-5.0, -5.0, -5.0, -4.0])
    count = 4 if family == "rtdetr-hf" else 3
    overrides = {"names": [f"n{number}" for number in range(count)]}
    spec = described(tmp_path, {"logits": logits, "pred_boxes": placed(20, 0, CENTRED, 0.1)}, overrides)
    assert spec.family == family
    answer = answer_of(spec, FRAME)
    np.testing.assert_allclose(answer["scores"], [0.8808 if family == "rtdetr-hf" else 0.9973], atol=1e-3)
    np.testing.assert_allclose(answer["boxes"], FOUND, atol=1e-3)
    assert spec.preprocess["mean"] == ((0.0,) * 3 if family == "rtdetr-hf" else (123.675, 116.28, 103.53))


def test_the_last_class_of_a_sigmoid_is_found(tmp_path: Path) -> None:
    logits = placed(20, 1, [-5.0] * 79 + [2.0], -5.0)
    overrides = {"names": [f"n{number}" for number in range(80)]}
    spec = described(tmp_path, {"logits": logits, "pred_boxes": placed(20, 1, CENTRED, 0.1)}, overrides)
    assert answer_of(spec, FRAME)["classes"].tolist() == [79]


def test_a_slot_that_is_best_on_noise_means_nothing(tmp_path: Path) -> None:
    logits = placed(20, 0, [-5.0, 3.0, -5.0], [-3.0, -3.0, 4.0])
    spec = described(tmp_path, {"logits": logits, "pred_boxes": placed(20, 0, CENTRED, 0.1)})
    assert spec.family == "detr"
    assert answer_of(spec, FRAME)["classes"].tolist() == [1]


def test_a_mask_of_pixels_makes_it_a_detr(tmp_path: Path) -> None:
    mask: dict[str, tuple[str, Dims]] = {**PICTURE, "pixel_mask": ("int64", ("batch", 64, 64))}
    outputs = {"logits": LOGITS, "pred_boxes": placed(20, 0, CENTRED, 0.1)}
    assert described(tmp_path, outputs, inputs=mask).family == "detr"


NOT_THESE: dict[str, Mapping[str, Array]] = {
    "TensorFlow's": {
        "detection_boxes": zeros(10, 4),
        "detection_scores": zeros(10),
        "detection_classes": zeros(10),
        "num_detections": np.array(3.0, np.float32),
    },
    "scores beyond 1": {"boxes": placed(CELLS, 3, BOX), "scores": placed(CELLS, 3, [3.0, -2.0])},
    "rows that are not as many": {"boxes": zeros(CELLS, 4), "scores": zeros(CELLS + 1, 3)},
}


@pytest.mark.parametrize("case", NOT_THESE)
def test_what_only_looks_alike_is_none_of_them(tmp_path: Path, case: str) -> None:
    ours = {"efficient-nms", "mmdeploy", "rtdetr-hf", "boxes-scores", "ultraface", "nanodet"}
    assert described(tmp_path, NOT_THESE[case]).family not in ours


def test_yolox_with_85_columns_is_no_nanodet(tmp_path: Path) -> None:
    table = zeros(CELLS, 85)
    table[:, 0], table[:, 4:] = 1.5, 0.5
    assert described(tmp_path, {"o": table}).family == "yolox"
    assert described(tmp_path, {"o": table}, metadata={"names": names(80), "task": "detect"}).family != "nanodet"
