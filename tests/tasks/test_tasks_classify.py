"""Classification against a slow reading, and the tensor task."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from parallel_infer.errors import InferError
from stages.tasks import Arrays
from stages.tasks.classify import Classify
from stages.tasks.tensor import Tensors
from tests.tasks import samples


def classify(row: Any, parameters: dict[str, Any] | None = None, **options: Any) -> Arrays:
    task = Classify(samples.spec("classify", "classifier", names=(), parameters=parameters or {}))
    return task.answer({"probs": np.asarray(row)}, samples.IDENTITY, task.options(samples.encode(**options)))


def test_shipped_classifier_finds_what_is_known_to_be_there(
    zoo: Path, pictures: Path, expected: dict[str, Any]
) -> None:
    session = onnxruntime.InferenceSession(zoo / "classifier.onnx", providers=["CPUExecutionProvider"])
    for name, wanted in expected.items():
        picture = cv2.imread(str(pictures / name))
        assert picture is not None
        side = round(min(picture.shape[:2]) * 0.875)
        top, left = ((length - side) // 2 for length in picture.shape[:2])
        crop = cv2.resize(picture[top : top + side, left : left + side], (224, 224), interpolation=cv2.INTER_LINEAR)
        row = (cv2.cvtColor(crop, cv2.COLOR_BGR2RGB).transpose(2, 0, 1)[None] - np.float32(127)) / np.float32(128)
        (probs,) = session.run(None, {"images": row})
        answer = classify(probs[0], top=3)
        assert answer["classes"].tolist() == np.argsort(-probs[0])[:3].tolist()
        np.testing.assert_allclose(answer["scores"], [score for _, score in wanted["classify"]], atol=0.02)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(1, 50))
def test_the_best_come_first_and_equal_ones_in_order(levels: list[int], top: int) -> None:
    scores = [level / 8 for level in levels]
    answer = classify(np.array(scores, np.float32), {"multi_label": True, "sigmoid": False}, top=top)
    expected = sorted(range(len(scores)), key=lambda number: -scores[number])[:top]
    assert answer["classes"].tolist() == expected
    assert answer["scores"].tolist() == [scores[number] for number in expected]


@given(arrays(np.float32, st.integers(2, 20), elements=st.floats(-80, 80, width=32)))
@settings(deadline=None)
def test_logits_get_a_softmax(row: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    powers = [math.exp(float(logit) - float(row.max())) for logit in row]
    answer = classify(row, {"activation": "softmax"}, top=len(row))
    expected = sorted((power / sum(powers) for power in powers), reverse=True)
    np.testing.assert_allclose(answer["scores"], expected, atol=1e-6)


def test_probabilities_are_left_alone() -> None:
    answer = classify(np.array([0.2, 0.7, 0.1], np.float32))
    assert answer["classes"].tolist() == [1, 0, 2]
    np.testing.assert_array_equal(answer["scores"], np.array([0.7, 0.2, 0.1], np.float32))
    assert answer["scores"].dtype == np.float32
    assert answer["classes"].dtype == np.int64
    assert "multi_label" not in answer


@pytest.mark.parametrize("row", [[0.2, 0.7, 0.6], [3.0, 1.0, -3.0], [0.0, 2.0, -1.0]])
def test_what_is_no_distribution_gets_a_softmax(row: list[float]) -> None:
    assert classify(np.array(row, np.float32))["scores"].sum() == pytest.approx(1.0)


def test_several_labels_get_a_sigmoid_only_where_they_need_one() -> None:
    logits = classify(np.array([0.0, 3.0, -3.0], np.float32), {"multi_label": True})
    np.testing.assert_allclose(logits["scores"], [1 / (1 + math.exp(-3)), 0.5, 1 / (1 + math.exp(3))], rtol=1e-6)
    ready = classify(np.array([0.5, 0.9, 0.1], np.float32), {"multi_label": True})
    assert ready["scores"].tolist() == np.array([0.9, 0.5, 0.1], np.float32).tolist()
    assert logits["multi_label"].tolist() == ready["multi_label"].tolist() == [1]
    assert ready["multi_label"].dtype == np.uint8


def test_classes_below_the_confidence_are_left_out() -> None:
    row = np.array([0.5, 0.25, 0.25], np.float32)
    assert classify(row, confidence=0.25)["classes"].tolist() == [0, 1, 2]
    assert classify(row, confidence=0.26)["classes"].tolist() == [0]
    assert classify(row, confidence=1.0)["scores"].shape == (0,)


def test_five_classes_are_the_default() -> None:
    assert len(classify(np.full(40, 1 / 40, np.float32))["classes"]) == 5


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_an_error(value: float) -> None:
    with pytest.raises(InferError, match="non-finite"):
        classify(np.array([0.5, value], np.float32))


@pytest.mark.parametrize("shape", [(1, 3), (3, 1, 1), (3,)])
def test_the_scores_may_have_dimensions_of_one(shape: tuple[int, ...]) -> None:
    assert classify(np.array([0.2, 0.7, 0.1], np.float16).reshape(shape))["classes"].tolist() == [1, 0, 2]


def test_among_several_outputs_the_names_decide() -> None:
    task = Classify(samples.spec("classify", "classifier"))
    outputs = {"features": np.ones(64, np.float32), "probs": np.array([0.1, 0.5, 0.1, 0.1, 0.2], np.float32)}
    assert task.answer(outputs, samples.IDENTITY, task.options(b""))["classes"].tolist() == [1, 4, 0, 2, 3]


@pytest.mark.parametrize("outputs", [{}, {"a": np.ones((2, 3), np.float32)}, {"a": np.ones(0, np.float32)}], ids=len)
def test_no_row_of_scores_is_an_error(outputs: Arrays) -> None:
    task = Classify(samples.spec("classify", "classifier"))
    with pytest.raises(InferError, match="expected one output"):
        task.answer(outputs, samples.IDENTITY, task.options(b""))


def test_the_answer_does_not_live_in_the_outputs() -> None:
    row = np.array([0.2, 0.7, 0.1], np.float32)
    assert not np.shares_memory(classify(row, top=100)["scores"], row)


def test_tensors_are_handed_out_bit_by_bit() -> None:
    task = Tensors(samples.spec("tensor", "tensor"))
    outputs: Arrays = {
        "a": np.array([[np.nan, np.inf], [-0.0, 1.5]], np.float32),
        "b": np.arange(6, dtype=np.int64).reshape(2, 3)[:, ::2],
        "c": np.array(True),
    }
    answer = task.answer(outputs, samples.IDENTITY, task.options(b""))
    assert list(answer) == ["a", "b", "c"]
    for name, output in outputs.items():
        assert answer[name].tobytes() == output.tobytes()
        assert (answer[name].dtype, answer[name].shape) == (output.dtype, output.shape)
        assert answer[name].flags.c_contiguous
        assert not np.shares_memory(answer[name], output)
