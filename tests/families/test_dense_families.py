"""Which models are taken for class maps, maps of numbers and vectors, and which are not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.recognise import describe
from tests.families.served import answer_of
from tests.families.tiny_graphs import Array, Dims, names, saved, tiny

FRAME = np.full((128, 128, 3), 90, np.uint8)
RISING = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)


def logits(classes: int, side: int = 16, lowest: float = -1.0) -> Array:
    """The first class is greatest on the left half, the last on the right one."""
    planes = np.full((classes, side, side), lowest, np.float32)
    planes[0, :, : side // 2] = planes[-1, :, side // 2 :] = lowest + 2
    return planes


LABELS = np.repeat([[0] * 32 + [2] * 32], 64, axis=0)
TOKENS = np.random.default_rng(0).normal(size=(197, 24)).astype(np.float32)
CASES: dict[str, tuple[Mapping[str, Array], dict[str, str], str, str]] = {
    "logits": ({"out": logits(5)}, {}, "semantic", "semantic"),
    "logits beside others": ({"out": logits(21, 64), "aux": logits(21, 64)}, {}, "semantic", "semantic"),
    "logits with names": ({"logits": logits(3)}, {"names": names(3)}, "semantic", "semantic"),
    "probabilities": ({"o": np.full((4, 64, 64), 0.25, np.float32)}, {}, "semantic", "semantic"),
    "channels last": ({"logits": np.ascontiguousarray(logits(5).transpose(1, 2, 0))}, {}, "semantic", "semantic"),
    "classes": ({"o": LABELS.astype(np.int64)}, {}, "semantic", "semantic"),
    "classes with a channel": ({"o": LABELS.astype(np.int32)[None]}, {}, "semantic", "semantic"),
    "Ultralytics": ({"output0": LABELS.astype(np.uint8)}, {"task": "semantic"}, "semantic", "semantic"),
    "one channel": ({"o": RISING[None]}, {"task": "semantic"}, "semantic", "semantic"),
    "depth": ({"predicted_depth": RISING}, {}, "map", "map"),
    "depth of half the size": ({"depth": RISING[::2, ::2]}, {}, "map", "map"),
    "saliency": ({"saliency": RISING[None]}, {}, "map", "map"),
    "depth by its task": ({"o": RISING[::2, ::2]}, {"task": "depth-estimation"}, "map", "map"),
    "ViT": ({"last_hidden_state": TOKENS, "pooler_output": TOKENS[0]}, {}, "embedding", "embedding"),
    "tokens alone": ({"last_hidden_state": TOKENS}, {}, "embedding", "embedding"),
    "CLIP": ({"image_embeds": TOKENS[3]}, {}, "embedding", "embedding"),
    "by its task": ({"o": TOKENS[3]}, {"task": "embedding"}, "embedding", "embedding"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_taken_for_what(tmp_path: Path, case: str) -> None:
    outputs, metadata, family, task = CASES[case]
    spec = describe("m", saved(tiny(outputs, metadata=metadata), tmp_path))
    assert (spec.family, spec.task, spec.batch) == (family, task, None)
    assert "task" in metadata or "names" in metadata or any("set " in warning for warning in spec.warnings)
    answer = answer_of(spec, FRAME)
    assert len(next(iter(answer.values()))) > 0
    if "class_map" in answer and case not in ("probabilities", "one channel"):
        assert set(answer["class_map"][:, :60].ravel()) == {0}
        assert len(set(answer["class_map"][:, 68:].ravel())) == 1
        assert answer["areas"].tolist() == [64 * 128] * 2


def test_the_hint_how_to_export_is_for_whoever_made_the_model(tmp_path: Path) -> None:
    hints = {}
    for case in ("Ultralytics", "logits with names", "classes"):
        outputs, metadata, *_ = CASES[case]
        inputs: dict[str, tuple[str, Dims]] = {"images": ("float32", (1, 3, 64, 64))}
        spec = describe("m", saved(tiny(outputs, inputs=inputs, metadata=metadata, batch=1), tmp_path))
        (warning,) = [warning for warning in spec.warnings if "Export with a dynamic batch" in warning]
        hints[case] = warning.partition("dynamic batch: ")[2]
    assert hints["Ultralytics"].startswith("yolo export")
    assert hints["logits with names"].startswith("optimum-cli")
    assert hints["classes"].startswith("torch.onnx.export")


def test_arcface_is_no_classifier(tmp_path: Path) -> None:
    faces: dict[str, tuple[str, Dims]] = {"input.1": ("float32", ("batch", 3, 112, 112))}
    path = saved(tiny({"683": TOKENS[0]}, inputs=faces), tmp_path)
    spec = describe("m", path)
    assert (spec.family, spec.preprocess["mean"], spec.preprocess["resize"]) == ("embedding", (127.5,) * 3, "stretch")
    np.testing.assert_allclose(
        answer_of(spec, FRAME)["embedding"], TOKENS[0] / np.linalg.norm(TOKENS[0].astype(float)), rtol=1e-5
    )
    assert describe("m", path, {"task": "classify"}).family == "classifier"
    assert describe("m", path, {"names": [str(number) for number in range(24)]}).family == "classifier"


NOT_THESE: dict[str, Mapping[str, Array]] = {
    "a picture": {"o": np.random.default_rng(0).random((3, 64, 64), np.float32) * 255},
    "features": {"o": np.random.default_rng(0).normal(size=(512, 2, 2)).astype(np.float32)},
    "a number for each pixel, and nobody says of what": {"o": RISING[None]},
    "class scores": {"o": np.linspace(-1, 1, 10, dtype=np.float32)},
}


@pytest.mark.parametrize("case", NOT_THESE)
def test_what_is_none_of_them(tmp_path: Path, case: str) -> None:
    assert describe("m", saved(tiny(NOT_THESE[case]), tmp_path)).task not in ("semantic", "map", "embedding")


def test_options_that_do_nothing_are_reported(tmp_path: Path) -> None:
    path = saved(tiny({"predicted_depth": RISING}), tmp_path)
    overrides: dict[str, Any] = {"conf": 0.5, "iou": 0.5}
    warnings = " ".join(describe("m", path, overrides).warnings)
    assert "conf has no effect" in warnings
    assert "iou has no effect" in warnings
    assert "names" not in warnings
