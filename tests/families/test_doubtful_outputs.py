"""Outputs that may be several things: right, or raw tensors, and how to have them read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from parallel_infer.errors import ModelRejected
from parallel_infer.model_spec import ModelSpec
from stages.recognise import describe
from tests.families.served import answer_of
from tests.families.tiny_graphs import CELLS, Array, Dims, names, saved, tiny

FRAME = np.full((128, 128, 3), 90, np.uint8)  # twice the row of 64 x 64
CHANCE = np.random.default_rng(11)
Floats = npt.NDArray[np.float32]


def noise(*shape: int, low: float = 0.0, high: float = 1.0) -> Floats:
    return (low + (high - low) * CHANCE.random(shape)).astype(np.float32)


def picture(height: int, width: int) -> dict[str, tuple[str, Dims]]:
    return {"images": ("float32", ("batch", 3, height, width))}


def described(folder: Path, outputs: Mapping[str, Array], overrides: Any = None, **graph: Any) -> ModelSpec:
    return describe("m", saved(tiny(outputs, **graph), folder), overrides or {})


RAW: dict[str, tuple[Mapping[str, Array], dict[str, Any]]] = {
    "heatmaps of a square picture": ({"output": noise(17, 64, 64, low=-0.1)}, {"inputs": picture(256, 256)}),
    "heatmaps, channels last": ({"o": noise(64, 64, 17, low=-0.1)}, {"inputs": picture(256, 256)}),
    "an optical flow": ({"output": noise(2, 64, 64, low=-9, high=9)}, {}),
    "colours of a gray picture": ({"ab": noise(2, 64, 64, low=-1)}, {}),
    "68 points of a face": ({"output": noise(136, low=-0.2, high=1.1)}, {}),
    "98 points of a face": ({"fc": noise(196)}, {}),
    "106 points of a face": ({"fc1": noise(212, low=-1)}, {}),
    "468 points of a face": ({"conv2d_21": noise(1404, high=192)}, {}),
    "5 points of a face in pixels": ({"output": noise(10, low=20, high=90)}, {}),
    "rotated boxes": (
        {"output0": np.concatenate((noise(4, CELLS, high=64), noise(15, CELLS, high=0.01), noise(1, CELLS)))},
        {},
    ),
    "YOLOX in fractions": ({"output": noise(CELLS, 12)}, {}),
    "YOLOv8 in fractions with the columns of NanoDet": ({"output0": noise(CELLS, CELLS)}, {}),
}


@pytest.mark.parametrize("case", RAW)
def test_what_may_be_several_things_is_raw_tensors_and_says_so(tmp_path: Path, case: str) -> None:
    outputs, graph = RAW[case]
    spec = described(tmp_path, outputs, **graph)
    assert (spec.task, spec.family) == ("tensor", "tensor")
    assert any("raw output tensors; set family and task" in warning for warning in spec.warnings)


@pytest.mark.parametrize(
    ("outputs", "overrides", "task"),
    [
        ({"output": noise(17, 16, 16, low=-0.1)}, {"task": "semantic"}, "semantic"),
        ({"output": noise(2, 64, 64, low=-9)}, {"names": "ground,sky"}, "semantic"),
        ({"seg": noise(5, 64, 64, low=-1)}, {}, "semantic"),
        ({"output": noise(136, low=-1)}, {"task": "classify"}, "classify"),
        ({"logits": noise(136, low=-1)}, {}, "classify"),
        ({"output": noise(10, low=-3, high=3)}, {}, "classify"),
        ({"output": RAW["rotated boxes"][0]["output0"]}, {"task": "obb"}, "obb"),
        ({"output": RAW["rotated boxes"][0]["output0"]}, {"task": "detect"}, "detect"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value,
)
def test_who_says_what_it_is_has_it_read(
    tmp_path: Path, outputs: dict[str, Array], overrides: dict[str, Any], task: str
) -> None:
    assert described(tmp_path, outputs, overrides).task == task


def vectors() -> dict[str, Array]:
    return {"FaceNet": noise(512, low=-2, high=2), "people": noise(256, high=3), "DINO": noise(384, low=-5, high=5)}


@pytest.mark.parametrize("case", vectors())
def test_nameless_vectors_are_embeddings_by_their_length(tmp_path: Path, case: str) -> None:
    vector = vectors()[case]
    spec = described(tmp_path, {"output": vector})
    assert spec.task == "embedding"
    assert any("set task = classify" in warning for warning in spec.warnings)
    np.testing.assert_allclose(answer_of(spec, FRAME)["embedding"], vector / np.linalg.norm(vector), atol=1e-6)
    told = described(tmp_path, {"output": vector}, {"names": [str(number) for number in range(len(vector))]})
    assert told.task == "classify"


def test_probabilities_of_so_many_classes_are_no_vector(tmp_path: Path) -> None:
    assert described(tmp_path, {"output": np.full(512, 1 / 512, np.float32)}).task == "classify"


def test_boxes_as_fractions_are_read_where_the_user_names_the_family(tmp_path: Path) -> None:
    """An object of the left half of the picture, 128 pixels wide and high."""
    box = [0.25, 0.5, 0.5, 1.0]
    v8 = np.concatenate((noise(4, CELLS) * 0.1, np.zeros((5, CELLS), np.float32)))
    v8[:4, 7], v8[6, 7] = box, 0.9
    v5 = np.concatenate((noise(3 * CELLS, 4) * 0.1, np.zeros((3 * CELLS, 6), np.float32)), axis=1)
    v5[7, :4], v5[7, 4], v5[7, 7] = box, 0.9, 1.0
    for family, table in (("yolov8", v8), ("yolov5", v5)):
        assert described(tmp_path, {"output": table}, {"names": "a,b,c,d,e"}).task == "tensor"
        spec = described(tmp_path, {"output": table}, {"family": family, "task": "detect"})
        answer = answer_of(spec, FRAME)
        np.testing.assert_allclose(answer["boxes"], [[0, 0, 64, 128]], atol=0.01)
        assert answer["classes"].tolist() == [2]


def picodet(nc: int = 3) -> dict[str, Array]:
    """Heads of a 64 x 64 row, the scores first; one object of class 2 in the cell of column 1 and row 2, stride 16."""
    outputs: dict[str, Array] = {}
    for stride in (8, 16, 32, 64):
        outputs[f"score_{stride}"] = np.full(((64 // stride) ** 2, nc), 0.01, np.float32)
    for stride in (8, 16, 32, 64):
        outputs[f"side_{stride}"] = noise((64 // stride) ** 2, 32, low=-1)
    score, side = outputs["score_16"], outputs["side_16"].reshape(-1, 4, 8)
    score[2 * 4 + 1, 2] = 0.8
    side[2 * 4 + 1] = -50.0
    for number, bins in enumerate((1, 2, 1, 1)):  # strides to the left, to the top, to the right, to the bottom
        side[2 * 4 + 1, number, bins] = 50.0
    return outputs


def test_picodet_without_its_end(tmp_path: Path) -> None:
    spec = described(tmp_path, picodet())
    assert (spec.family, spec.task, spec.preprocess["resize"]) == ("picodet", "detect", "stretch")
    assert any("set family" in warning for warning in spec.warnings)
    answer = answer_of(spec, FRAME)
    x, y = 2 * 24, 2 * 40  # the middle of the cell, in a picture twice as big
    expected = [x - 32, y - 64, x + 32, y + 32]
    np.testing.assert_allclose(answer["boxes"], [expected], atol=1e-3)
    assert (answer["classes"].tolist(), answer["scores"].tolist()) == ([2], [np.float32(0.8)])
    assert described(tmp_path, picodet(), {"names": "a,b,c"}).warnings == ()
    assert described(tmp_path, picodet(), {"names": "a,b"}).task == "tensor"
    with pytest.raises(ModelRejected, match="PicoDet|of each stride"):
        described(tmp_path, {"o": noise(CELLS, 35)}, {"family": "picodet"})


def read_up_to_end(classes: list[int], count: int, places: int = 26) -> Floats:
    table = noise(places, count, low=-1)
    table[np.arange(places), (classes + [1] * places)[:places]] = 20.0
    return table


LINES = picture(32, 128)


@pytest.mark.parametrize(
    ("classes", "count", "end", "options"),
    [
        ([3, 2, 4, 4, 1, 0, 4, 4], 5, 0, {}),  # PARSeq: the end is the first class
        ([2, 1, 3, 3, 0, 4], 5, 4, {"background": -1}),  # docTR: the end is behind the characters
        ([2, 1, 3, 3, 0, 4], 7, 4, {"background": 4}),  # with marks for the beginning and for filling up
    ],
)
def test_a_reader_up_to_an_end_mark_keeps_what_stands_twice(
    tmp_path: Path, classes: list[int], count: int, end: int, options: dict[str, Any]
) -> None:
    """ "cbdda": the steps are no parts of a line of 128 pixels, so these are no CTC's."""
    table = read_up_to_end(classes, count)
    spec = described(tmp_path, {"output": table}, {"names": "a,b,c,d", "task": "text", **options}, inputs=LINES)
    assert (spec.family, spec.parameters["blank"]) == ("parseq", end)
    assert any("set family = ctc" in warning for warning in spec.warnings)
    assert answer_of(spec, FRAME)["text"].tobytes() == b"cbdda"


def test_steps_that_may_be_either_are_said_to_be_read_as_ctc(tmp_path: Path) -> None:
    table = read_up_to_end([3, 2, 4, 4, 1, 0], 5, places=32)
    options = {"names": "a,b,c,d", "task": "text", "background": 0}
    spec = described(tmp_path, {"output": table}, options, inputs=LINES)
    assert spec.family == "ctc"
    assert any("set family = parseq" in warning for warning in spec.warnings)
    told = described(tmp_path, {"output": table}, {**options, "family": "parseq"}, inputs=LINES)
    assert answer_of(told, FRAME)["text"].tobytes() == b"cbdda"
    with pytest.raises(ModelRejected, match="no characters"):
        described(tmp_path, {"output": table}, {"family": "parseq"}, inputs=LINES)
    with pytest.raises(ModelRejected, match="an end mark"):
        described(tmp_path, {"output": table}, {"family": "parseq", "names": names(3)}, inputs=LINES)
