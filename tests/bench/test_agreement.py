"""How far the answers of a model and of its copy are apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parallel_infer.tools.quantize.agreement import agreement, box_iou, matches


def objects(*boxes: tuple[float, float, float, float], number: int = 0, score: float = 0.9) -> dict[str, np.ndarray]:
    return {
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "scores": np.full(len(boxes), score, np.float32),
        "classes": np.full(len(boxes), number, np.int64),
    }


def test_agreement_of_objects() -> None:
    one, far = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 60.0, 60.0)

    found = agreement(
        "detect",
        [
            (objects(one, far), objects(one, score=0.8)),  # one is missing
            (objects(one), objects(one, number=3)),  # another class
            (objects(), objects()),
        ],
    )

    assert (found.objects, found.matched, found.class_changes, found.pictures) == ((3, 2), 2, 1, 3)
    assert found.share == pytest.approx(2 * 1 / 5)
    assert found.iou == pytest.approx(1.0)
    assert found.score_shift == pytest.approx(0.05)


def test_agreement_of_classes() -> None:
    def scores(*pairs: tuple[int, float]) -> dict[str, np.ndarray]:
        return {"classes": np.array([n for n, _ in pairs]), "scores": np.array([s for _, s in pairs], np.float32)}

    found = agreement(
        "classify",
        [(scores((1, 0.9), (2, 0.1)), scores((1, 0.7), (2, 0.3))), (scores((1, 0.6), (2, 0.4)), scores((2, 0.8)))],
    )

    assert (found.share, found.undecided) == (0.5, 0)
    assert found.score_shift == pytest.approx((0.2 + 0.6) / 2)


def test_what_the_model_hardly_decides_does_not_count() -> None:
    def scores(*pairs: tuple[int, float]) -> dict[str, np.ndarray]:
        return {"classes": np.array([n for n, _ in pairs]), "scores": np.array([s for _, s in pairs], np.float32)}

    before = scores((1, 0.37), (2, 0.36), (3, 0.2))
    tie, changed = (before, scores((2, 0.38), (1, 0.35))), (before, scores((3, 0.4), (1, 0.3)))
    assert agreement("classify", [tie]).share == agreement("classify", [tie]).undecided == 1
    assert agreement("classify", [tie, changed]).share == 0.5
    assert agreement("classify", [(before, scores())]).share == 0

    one, other = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 60.0, 60.0)
    faint, clear = objects(other, score=0.27), objects(other, score=0.4)
    for lost in ((faint, objects()), (objects(), faint)):
        found = agreement("detect", [(objects(one), objects(one)), lost], 0.25)
        assert (found.share, found.undecided, sum(found.objects)) == (1.0, 1, 3)
    assert agreement("detect", [(objects(one), objects(one)), (clear, objects())], 0.25).share == pytest.approx(2 / 3)


BOXES = st.lists(
    st.tuples(*[st.integers(0, 40)] * 2, *[st.integers(1, 20)] * 2).map(
        lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
    ),
    max_size=6,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(BOXES, BOXES)
def test_matches_pair_each_box_once_and_agree_with_plain_areas(
    some: list[tuple[int, ...]], others: list[tuple[int, ...]]
) -> None:
    first, second = (np.array(boxes, np.float32).reshape(-1, 4) for boxes in (some, others))
    overlaps = box_iou(first, second)

    for row, one in enumerate(some):
        for column, other in enumerate(others):
            width = max(0, min(one[2], other[2]) - max(one[0], other[0]))
            height = max(0, min(one[3], other[3]) - max(one[1], other[1]))
            areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
            expected = width * height / (sum(areas) - width * height)
            assert overlaps[row, column] == pytest.approx(expected, rel=1e-5)
    pairs = matches(first, second)
    assert len({one for one, _ in pairs}) == len({other for _, other in pairs}) == len(pairs)
    assert all(overlaps[pair] >= 0.5 for pair in pairs)
    assert len(matches(first, first)) == len(some)
