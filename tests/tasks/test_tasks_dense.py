"""Class maps, maps of numbers and vectors, against the same outputs read slowly, one pixel at a time."""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from parallel_infer import Answer
from parallel_infer.answers.answer import result_dict
from parallel_infer.answers.dense_results import class_map_from_runs
from parallel_infer.answers.drawing import color_of
from parallel_infer.cli.answer_formats import Csv, JsonLines, Tables
from parallel_infer.cli.video_display import summary
from parallel_infer.errors import BadInput, InferError, ModelRejected
from stages.geometry import Geometry
from stages.tasks import Arrays
from stages.tasks.embedding import Embedding
from stages.tasks.map import Map
from stages.tasks.semantic import Semantic
from tests.tasks import samples
from tests.tasks.slow_masks import coco_text

Planes = npt.NDArray[Any]
ROW = (48, 32)
STRETCH = Geometry(37, 23, 48 / 37, 32 / 23, 0.0, 0.0)
LETTERBOX = Geometry(60, 30, 0.8, 0.8, 0.0, 4.0)  # 4 rows of padding above and below
NAMES = ("road", "sky", "car")


def spec(task: str, **parameters: Any) -> Any:
    preprocess = {"width": ROW[0], "height": ROW[1], "resize": "stretch"}
    known = {"output": "out", **parameters}
    return samples.spec(task, task, names=NAMES, preprocess=preprocess, parameters=known)


def noise(seed: int, *shape: int) -> npt.NDArray[np.float32]:
    fields = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return np.asarray(
        cv2.blur(fields.transpose(1, 2, 0), (3, 3)).reshape(*shape[1:], -1).transpose(2, 0, 1), np.float32
    )


def semantic(out: Planes, geometry: Geometry = STRETCH, parameters: Any = None, **options: Any) -> Arrays:
    task = Semantic(spec("semantic", **(parameters or {})))
    return task.answer({"out": out}, geometry, task.options(samples.encode(**options)))


def place(pixel: int, scale: float, offset: float, cells: int, row: int) -> float:
    """The middle of a pixel of the picture, in cells of the grid."""
    return ((pixel + 0.5) * scale + offset) * cells / row


def read(plane: Planes, x: float, y: float) -> float:
    """Between the centres of four cells; beyond the outermost centres these count alone."""
    height, width = plane.shape
    x, y = min(max(x - 0.5, 0), width - 1), min(max(y - 0.5, 0), height - 1)
    left, top = min(int(x), width - 2), min(int(y), height - 2)
    a, b = x - left, y - top
    upper = plane[top, left] * (1 - a) + plane[top, left + 1] * a
    lower = plane[top + 1, left] * (1 - a) + plane[top + 1, left + 1] * a
    return float(upper * (1 - b) + lower * b)


def read_slowly(planes: Planes, geometry: Geometry) -> npt.NDArray[np.float64]:
    """[classes, height, width] of the picture."""
    found = np.zeros((len(planes), int(geometry.height), int(geometry.width)))
    for y in range(found.shape[1]):
        for x in range(found.shape[2]):
            across = place(x, geometry.scale_x, geometry.offset_x, planes.shape[2], ROW[0])
            down = place(y, geometry.scale_y, geometry.offset_y, planes.shape[1], ROW[1])
            found[:, y, x] = [read(plane, across, down) for plane in planes]
    return found


@pytest.mark.parametrize("geometry", [STRETCH, LETTERBOX], ids=["stretch", "letterbox"])
@pytest.mark.parametrize("classes", [2, 3, 8, 20])
def test_each_pixel_has_the_class_of_the_greatest_logit_there(classes: int, geometry: Geometry) -> None:
    logits = noise(classes, classes, 8, 12)
    values = read_slowly(logits, geometry)
    answer = semantic(logits, geometry)
    chosen = np.take_along_axis(values, answer["class_map"][None].astype(np.int64), axis=0)[0]
    assert answer["class_map"].shape == (geometry.height, geometry.width)
    assert answer["class_map"].dtype == np.uint8
    # Of twenty, one that is third everywhere around may be greatest in between.
    assert np.mean(values.max(axis=0) - chosen > 1e-5) <= (0.0 if classes <= 8 else 0.01)
    counts = np.bincount(answer["class_map"].ravel(), minlength=classes)
    assert answer["areas"].tolist() == sorted(counts[counts > 0].tolist(), reverse=True)
    assert [counts[number] for number in answer["classes"]] == answer["areas"].tolist()


def test_channels_may_stand_last() -> None:
    logits = noise(1, 4, 8, 12)
    turned = semantic(np.ascontiguousarray(logits.transpose(1, 2, 0)), parameters={"channels_last": True})
    np.testing.assert_array_equal(turned["class_map"], semantic(logits)["class_map"])


@pytest.mark.parametrize("dtype", ["uint8", "int64", "int32", "bool"])
@pytest.mark.parametrize("geometry", [STRETCH, LETTERBOX], ids=["stretch", "letterbox"])
def test_ready_classes_are_those_of_the_nearest_place(dtype: str, geometry: Geometry) -> None:
    classes = (noise(2, 1, 16, 24)[0] > 0).astype(dtype)
    labels = semantic(classes, geometry)["class_map"]
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            across = place(x, geometry.scale_x, geometry.offset_x, 24, ROW[0])
            down = place(y, geometry.scale_y, geometry.offset_y, 16, ROW[1])
            assert labels[y, x] == classes[math.floor(down), math.floor(across)]
    np.testing.assert_array_equal(semantic(classes[None], geometry)["class_map"], labels)


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_one_channel_is_something_or_nothing(threshold: float) -> None:
    logits = noise(3, 1, 8, 12) + np.float32(threshold)
    labels = semantic(logits, parameters={"threshold": threshold})["class_map"]
    np.testing.assert_array_equal(labels, read_slowly(logits, STRETCH)[0] > threshold)


def test_more_than_256_classes_have_room() -> None:
    classes = np.arange(6 * 4, dtype=np.int64).reshape(4, 6) * 40
    answer = semantic(classes, Geometry(6, 4, 8, 8, 0, 0))
    assert answer["class_map"].dtype == np.uint16
    np.testing.assert_array_equal(answer["class_map"], classes)


def test_other_forms_hold_the_same_map() -> None:
    logits = noise(4, 3, 8, 12)
    labels = semantic(logits)["class_map"]
    png = semantic(logits, map_format="png")
    np.testing.assert_array_equal(cv2.imdecode(png["class_map_png"], cv2.IMREAD_UNCHANGED), labels)
    runs = semantic(logits, map_format="rle")
    assert "class_map" not in runs
    assert "class_map" not in png
    masks = Answer("semantic", "m", runs, width=37, height=23).rle
    assert masks is not None
    for number, mask in zip(runs["classes"].tolist(), masks, strict=True):
        assert mask["counts"].encode() == coco_text(labels == number)
    np.testing.assert_array_equal(class_map_from_runs(masks, runs["classes"].tolist()), labels)


def test_a_filter_lists_only_its_classes_and_leaves_the_map() -> None:
    logits = noise(5, 3, 8, 12)
    answer = semantic(logits, class_filter=["sky", 0])
    assert sorted(answer["classes"].tolist()) == [0, 1]
    np.testing.assert_array_equal(answer["class_map"], semantic(logits)["class_map"])
    with pytest.raises(BadInput, match="map_format"):
        semantic(logits, map_format="jpeg")


@pytest.mark.parametrize(
    ("out", "match"),
    [
        (np.full((3, 4, 6), np.nan, np.float32), "non-finite"),
        (np.full((4, 6), -1, np.int64), "expected 0 to"),
        (np.full((4, 6), 70000, np.int64), "expected 0 to"),
        (np.zeros(4, np.float32), "expected a map"),
    ],
)
def test_outputs_that_make_no_sense_are_errors(out: Planes, match: str) -> None:
    with pytest.raises(InferError, match=match):
        semantic(out)


@pytest.mark.parametrize("geometry", [STRETCH, LETTERBOX], ids=["stretch", "letterbox"])
def test_a_map_has_a_number_for_each_pixel(geometry: Geometry) -> None:
    numbers = noise(6, 1, 8, 12)
    task = Map(spec("map"))
    answer = task.answer({"out": numbers}, geometry, task.options(b""))
    assert answer["map"].dtype == np.float32
    np.testing.assert_allclose(answer["map"], read_slowly(numbers, geometry)[0], atol=1e-5)
    png = task.answer({"out": numbers}, geometry, task.options(samples.encode(map_format="png")))
    least, most = png["range"].tolist()
    steps = cv2.imdecode(png["map_png"], cv2.IMREAD_UNCHANGED)
    assert steps is not None
    assert steps.dtype == np.uint16
    np.testing.assert_allclose(least + steps / 65535 * (most - least), answer["map"], atol=(most - least) / 65535)


def test_the_models_own_grid_is_that_of_the_picture() -> None:
    numbers = np.arange(8 * 12, dtype=np.float32).reshape(8, 12)
    task = Map(spec("map"))
    options = task.options(samples.encode(map_size="model"))
    np.testing.assert_array_equal(task.answer({"out": numbers}, STRETCH, options)["map"], numbers)
    np.testing.assert_array_equal(task.answer({"out": numbers}, LETTERBOX, options)["map"], numbers[1:7])


def test_a_flat_map_is_a_map() -> None:
    task = Map(spec("map"))
    options = task.options(samples.encode(map_format="png"))
    answer = task.answer({"out": np.full((8, 12), 3.0, np.float32)}, STRETCH, options)
    assert answer["range"].tolist() == [3.0, 3.0]
    drawn = Answer("map", "m", answer, width=37, height=23).draw(np.zeros((23, 37, 3), np.uint8))
    assert drawn.shape == (23, 37, 3)


@pytest.mark.parametrize("kind", [Semantic, Map])
def test_a_crop_of_the_picture_is_refused(kind: Any) -> None:
    cropped = samples.spec("map", "map", preprocess={"width": 8, "height": 8, "resize": "crop"})
    with pytest.raises(ModelRejected, match="part of the picture"):
        kind(samples.spec("map", "map", preprocess=cropped.preprocess, parameters={"output": "out"}))


@pytest.mark.parametrize("shape", [(6,), (6, 1, 1), (5, 6), (1, 6)])
def test_a_vector_has_the_length_one(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(7).normal(size=shape).astype(np.float16)
    task = Embedding(spec("embedding"))
    vector = task.answer({"out": values}, STRETCH, task.options(b""))["embedding"]
    first = (values[0] if shape == (5, 6) else values).astype(float).ravel()
    np.testing.assert_allclose(vector, first / math.sqrt(sum(number**2 for number in first.tolist())), rtol=1e-5)
    assert vector.dtype == np.float32


@pytest.mark.parametrize(("value", "match"), [(0.0, "no direction"), (np.inf, "non-finite")])
def test_a_vector_without_a_direction_is_an_error(value: float, match: str) -> None:
    task = Embedding(spec("embedding"))
    with pytest.raises(InferError, match=match):
        task.answer({"out": np.full(6, value, np.float32)}, STRETCH, task.options(b""))


# As people see them.

HALVES = np.repeat([[0] * 20 + [1] * 10], 20, axis=0).astype(np.uint8)
SEMANTIC: Arrays = {"classes": np.array([0, 1]), "areas": np.array([400, 200]), "class_map": HALVES}
ANSWERS = {
    "semantic": Answer("semantic", "m", SEMANTIC, dict(enumerate(NAMES)), width=30, height=20),
    "map": Answer("map", "m", {"map": np.linspace(0, 2, 600, dtype=np.float32).reshape(20, 30)}, width=30, height=20),
    "embedding": Answer("embedding", "m", {"embedding": np.array([0.6, -0.8], np.float32)}, width=30, height=20),
}


@pytest.mark.parametrize(("task", "found"), [("semantic", "2 found"), ("map", "1 arrays"), ("embedding", "1 arrays")])
def test_an_answer_says_what_it_holds(task: str, found: str) -> None:
    assert repr(ANSWERS[task]) == f"<Answer {task} of 'm': {found}, picture 30x20>"


def test_the_properties_of_an_answer() -> None:
    found = ANSWERS["semantic"]
    assert (found.names, len(found)) == (["road", "sky"], 2)
    assert found.class_map is HALVES
    assert found.areas is not None
    assert ANSWERS["map"].map is not None
    assert ANSWERS["embedding"].embedding is not None
    assert ANSWERS["embedding"].map is ANSWERS["map"].class_map is found.embedding is None


def test_the_result_maps() -> None:
    result = ANSWERS["semantic"].to_dict()
    assert result["predictions"] == [
        {"class": "road", "class_id": 0, "area": 400, "share": pytest.approx(2 / 3)},
        {"class": "sky", "class_id": 1, "area": 200, "share": pytest.approx(1 / 3)},
    ]
    assert result["image"] == {"width": 30, "height": 20}
    encoded = cv2.imencode(".png", HALVES)[1]
    other = {**SEMANTIC, "class_map_png": encoded.ravel()}
    result = result_dict("semantic", other, dict(enumerate(NAMES)), width=30, height=20)
    assert base64.b64decode(result["segmentation_mask"]) == encoded.tobytes()
    assert result["class_map"] == {"0": "road", "1": "sky"}
    assert ANSWERS["map"].to_dict()["map"] == {
        "width": 30,
        "height": 20,
        "min": 0.0,
        "max": 2.0,
        "mean": pytest.approx(1.0),
    }
    assert ANSWERS["embedding"].to_dict()["embedding"] == pytest.approx([0.6, -0.8])


def test_run_lengths_are_in_the_result_map() -> None:
    answer = semantic(noise(4, 3, 8, 12), map_format="rle")
    first = result_dict("semantic", answer, {}, width=37, height=23)["predictions"][0]
    assert first["mask_format"] == "rle"
    assert first["rle"]["size"] == [23, 37]


def test_classes_are_drawn_in_their_colours_whatever_the_form() -> None:
    frame = np.zeros((200, 300, 3), np.uint8)  # a preview, ten times as large
    drawn = ANSWERS["semantic"].draw(frame)
    assert drawn[150, 50].tolist() == pytest.approx([channel / 2 for channel in color_of(0)], abs=1)
    assert drawn[150, 280].tolist() == pytest.approx([channel / 2 for channel in color_of(1)], abs=1)
    png = {**SEMANTIC, "class_map_png": cv2.imencode(".png", HALVES)[1].ravel()}
    del png["class_map"]
    names = dict(enumerate(NAMES))
    np.testing.assert_array_equal(Answer("semantic", "m", png, names, width=30, height=20).draw(frame), drawn)
    logits = np.stack([1.0 - HALVES, HALVES]).astype(np.float32)
    task = Semantic(spec("semantic"))
    geometry = Geometry(30, 20, 48 / 30, 32 / 20, 0, 0)
    runs = task.answer({"out": logits}, geometry, task.options(samples.encode(map_format="rle")))
    again = Answer("semantic", "m", runs, names, width=30, height=20).draw(frame)
    assert again[150, 50].tolist() == drawn[150, 50].tolist()


def test_a_map_is_drawn_from_dark_to_bright() -> None:
    drawn = ANSWERS["map"].draw(np.zeros((200, 300, 3), np.uint8)).astype(int)
    assert drawn[199, 299].sum() > drawn[100, 150].sum() > drawn[30, 250].sum()


def test_a_vector_draws_nothing() -> None:
    assert not ANSWERS["embedding"].draw(np.zeros((20, 30, 3), np.uint8)).any()


@pytest.mark.parametrize(
    ("task", "table", "csv", "words"),
    [
        ("semantic", "66.7 %", "file,class,class_id,area,share\na.png,road,0,400,0.666667\n", "road 67 %, sky 33 %"),
        ("map", "numbers from 0 to 2", "file,min,max\na.png,0,2\n", "0 to 2"),
        ("embedding", "a vector of 2 numbers", "file,0,1\na.png,0.6,-0.8\n", "a vector of 2 numbers"),
    ],
)
def test_the_command_prints_them(
    capsys: pytest.CaptureFixture[str], task: str, table: str, csv: str, words: str
) -> None:
    for kind, expected in ((Tables, table), (Csv, csv), (JsonLines, '"file": "a.png"')):
        with kind() as shown:
            shown.answer(Path("a.png"), ANSWERS[task])
        assert expected in capsys.readouterr().out
    assert summary(ANSWERS[task]) == words
