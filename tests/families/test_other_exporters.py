"""Files of other exporters that look like a known family and are none: right, or raw tensors that say so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from parallel_infer import Answer
from parallel_infer.answers.dense_results import class_map_from_runs
from parallel_infer.cli.answer_formats import Csv, Tables
from parallel_infer.model_spec import ModelSpec
from stages.recognise import describe
from tests.families.served import answer_of
from tests.families.tiny_graphs import CELLS, PICTURE, Array, Dims, names, saved, tiny, zeros

FRAME = np.full((128, 128, 3), 90, np.uint8)  # twice the row of 64 x 64
CHANCE = np.random.default_rng(7)
Floats = npt.NDArray[np.float32]


def noise(*shape: int, low: float = 0.0, high: float = 1.0) -> Floats:
    return (low + (high - low) * CHANCE.random(shape)).astype(np.float32)


def centred(count: int, size: float) -> Floats:
    """cx, cy, w, h of boxes all over a picture of that size."""
    return np.concatenate((noise(count, 2) * size, noise(count, 2) * size / 4), axis=1)


def corners(count: int, size: float) -> Floats:
    boxes = centred(count, size)
    return np.concatenate((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), axis=1)


def falling(count: int) -> Floats:
    """Scores of ready objects, best first."""
    return np.linspace(0.9, 0.01, count, dtype=np.float32)[:, None]


def whole(count: int, classes: int) -> Floats:
    return (np.arange(count) % classes).astype(np.float32)[:, None]


def of_vector(numbers: Floats) -> Floats:
    return np.asarray(numbers / np.linalg.norm(numbers), np.float32)


def picture(height: int, width: int) -> dict[str, tuple[str, Dims]]:
    return {"images": ("float32", ("batch", 3, height, width))}


def described(folder: Path, outputs: Mapping[str, Array], overrides: Any = None, **graph: Any) -> ModelSpec:
    return describe("m", saved(tiny(outputs, **graph), folder), overrides or {})


NO_FAMILY: dict[str, tuple[Mapping[str, Array], dict[str, Any]]] = {
    "heads of YOLOv8 before they are joined": (
        {f"out{stride}": noise(144, 64 // stride, 64 // stride, low=-3) for stride in (8, 16, 32)},
        {},
    ),
    "Mask2Former": (
        {"class_queries_logits": noise(100, 92, low=-5), "masks_queries_logits": noise(100, 16, 16, low=-1)},
        {},
    ),
    "heatmaps of people": ({"output": noise(17, 64, 48, low=-0.1)}, {"inputs": picture(256, 192)}),
    "heatmaps by name": ({"heatmaps": noise(16, 64, 64, low=-0.1)}, {"inputs": picture(256, 256)}),
    "SAM's encoder": ({"image_embeddings": noise(256, 16, 16, low=-1)}, {}),
    "a map of features": ({"features": noise(256, 8, 8, low=-1)}, {}),
    "a map called embeddings": ({"embeddings": noise(256, 16, 16, low=-1)}, {}),
    "ConvNeXt's last map": ({"last_hidden_state": noise(768, 2, 2, low=-1)}, {}),
    "Swin's patches": ({"last_hidden_state": noise(4, 768, low=-1)}, {}),
    "offsets of SSD": ({"loc": noise(876, 4, low=-2, high=2), "conf": noise(876, 21)}, {}),
    "boxes of centre and size": ({"boxes": centred(CELLS, 64), "scores": noise(CELLS, 5)}, {}),
    "ready boxes of corner and size": ({"output": np.hstack((centred(300, 64), falling(300), whole(300, 3)))}, {}),
    "ready boxes as xyxy fractions": ({"output": np.hstack((corners(300, 1), falling(300), whole(300, 3)))}, {}),
    "one class before the score": ({"output": np.hstack((corners(300, 64), whole(300, 1), falling(300)))}, {}),
    "the same with metadata": (
        {"output": np.hstack((corners(300, 64), whole(300, 1), falling(300)))},
        {"metadata": {"task": "detect", "names": names(1)}},
    ),
    "YOLOv8 in fractions": (
        {"output0": np.concatenate((centred(CELLS, 1).T, noise(5, CELLS)))},
        {"metadata": {"task": "detect", "names": names(5)}},
    ),
    "YOLOv5 in fractions": ({"output": np.hstack((centred(3 * CELLS, 1), noise(3 * CELLS, 6)))}, {}),
    "a face's score, box and points": ({"dense_4": zeros(4), "dense_5": zeros(10), "softmax_1": noise(2)}, {}),
    "percent": (
        {"output": np.array([10, 20, 60, 5, 5], np.float32)},
        {"metadata": {"names": names(5)}},
    ),
    "quantized scores": (
        {"output": np.array([10, 20, 60, 5, 5], np.uint8)},
        {"metadata": {"names": names(5)}},
    ),
}


@pytest.mark.parametrize("case", NO_FAMILY)
def test_what_only_looks_like_a_family_is_raw_tensors_and_says_so(tmp_path: Path, case: str) -> None:
    outputs, graph = NO_FAMILY[case]
    spec = described(tmp_path, outputs, **graph)
    assert (spec.task, spec.family) == ("tensor", "tensor")
    assert any("raw output tensors" in warning for warning in spec.warnings)


CLASSIFIERS: dict[str, Mapping[str, Array]] = {
    "hidden states": {"logits": noise(10, low=-5), "hidden_states.0": zeros(17, 8), "hidden_states.1": zeros(17, 8)},
    "attentions": {"logits": noise(10, low=-5), "attentions": zeros(3, 17, 17)},
    "a map of where": {"probabilities": noise(10, low=-5), "cam": zeros(10, 8, 8)},
}


@pytest.mark.parametrize("case", CLASSIFIERS)
def test_a_classifier_may_have_outputs_besides_its_scores(tmp_path: Path, case: str) -> None:
    spec = described(tmp_path, CLASSIFIERS[case])
    assert (spec.task, spec.family) == ("classify", "classifier")
    assert any("nothing is read of the outputs" in warning for warning in spec.warnings)


def test_scores_of_their_own_get_no_softmax_where_nothing_names_the_sigmoid(tmp_path: Path) -> None:
    scores = np.array([0.1, 0.9, 0.8, 0.2], np.float32)
    spec = described(tmp_path, {"output": scores}, metadata={"names": names(4)})
    assert any("do not sum to 1" in warning for warning in spec.warnings)
    assert answer_of(spec, FRAME)["scores"].tolist() == sorted(scores.tolist(), reverse=True)


VECTORS: dict[str, tuple[Mapping[str, Array], str]] = {
    "OpenCLIP": ({"image_features": noise(64, low=-1)}, ""),
    "timm without its head": ({"features": noise(64)}, ""),
    "of length 1": ({"output": of_vector(noise(64, low=-1))}, "an embedding; set task"),
    "DINOv2 without its pooler": ({"last_hidden_state": noise(17, 8, low=-1)}, "the first of the 17 vectors"),
}


@pytest.mark.parametrize("case", VECTORS)
def test_vectors_are_embeddings_under_other_names_too(tmp_path: Path, case: str) -> None:
    outputs, warning = VECTORS[case]
    spec = described(tmp_path, outputs)
    assert (spec.task, spec.family) == ("embedding", "embedding")
    assert any(warning in said for said in spec.warnings)
    first = next(iter(outputs.values())).reshape(-1, outputs[next(iter(outputs))].shape[-1])[0]
    np.testing.assert_allclose(answer_of(spec, FRAME)["embedding"], of_vector(first), atol=1e-6)


def test_boxes_labels_and_scores_may_be_fractions(tmp_path: Path) -> None:
    boxes = np.clip(corners(20, 1), 0, 1)
    outputs = {"boxes": boxes, "labels": np.arange(20), "scores": falling(20)[:, 0]}
    spec = described(tmp_path, outputs, inputs=PICTURE)
    assert spec.family == "torchvision"
    assert any("fractions" in warning for warning in spec.warnings)
    np.testing.assert_allclose(answer_of(spec, FRAME)["boxes"][0], boxes[0] * 128, atol=1e-3)


def ready_masks(*shape: int) -> tuple[dict[str, Array], npt.NDArray[np.bool_]]:
    """One object whose upper half is set, in a box of 32 x 32 of the row, and where that is in a picture twice as big.

    `shape` is that of a mask: the row's, or another that spans the box.
    """
    dets = np.array([[16, 16, 48, 48, 0.9], [0, 0, 9, 9, 0.01]], np.float32)
    masks = zeros(2, *shape)
    masks[0, 16:32, 16:48] = 0.9  # probabilities
    if shape != (64, 64):
        masks[0] = 0.0
        masks[0, : shape[0] // 2] = 0.9
    expected = np.zeros((128, 128), np.bool_)
    expected[32:64, 32:96] = True
    return {"dets": dets, "labels": np.array([1, 0]), "masks": masks}, expected


@pytest.mark.parametrize("shape", [(64, 64), (28, 28)], ids=["of the row", "of the box"])
def test_mmdeploys_masks_are_those_of_the_objects(tmp_path: Path, shape: tuple[int, int]) -> None:
    outputs, expected = ready_masks(*shape)
    spec = described(tmp_path, outputs)
    assert (spec.task, spec.family) == ("segment", "mmdeploy")
    arrays = answer_of(spec, FRAME, mask_format="rle")
    answer = Answer("segment", "m", arrays, width=128, height=128)
    assert arrays["classes"].tolist() == [1]
    assert answer.rle is not None
    found = class_map_from_runs(answer.rle, [1]) == 1
    assert np.sum(found != expected) <= 0.03 * np.sum(expected), "edges of probabilities may be a pixel off"


def anomalies() -> dict[str, Array]:
    heat = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(1, 64, 64)
    return {
        "pred_score": np.array([0.75], np.float32),
        "pred_label": np.array([True]),
        "anomaly_map": heat,
        "pred_mask": heat > 0.5,
    }


def test_an_anomaly_has_its_map_and_its_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = described(tmp_path, anomalies())
    assert (spec.task, spec.family) == ("map", "map")
    assert any("nothing is read of the outputs pred_label, pred_mask" in warning for warning in spec.warnings)
    arrays = answer_of(spec, FRAME)
    assert arrays["map"].shape == (128, 128)
    answer = Answer("map", "m", arrays, width=128, height=128)
    assert answer.to_dict()["confidence"] == 0.75
    Tables().answer(Path("part.png"), answer)
    table = Csv()
    table.answer(Path("part.png"), answer)
    assert [line for line in capsys.readouterr().out.splitlines() if line] == [
        "part.png: numbers from 0 to 1, score 0.75",
        "file,min,max,score",
        "part.png,0,1,0.75",
    ]
