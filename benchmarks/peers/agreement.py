"""Whether two servers found the same in a picture."""

from __future__ import annotations

from typing import Any

import numpy as np

Answer = dict[str, Any]

_OVERLAP = 0.9  # IoU of two boxes that are the same
_SCORE = 0.05  # most that two scores of the same thing differ: decoders and bfloat16 are not exact
_SURE = 0.25 + 0.05  # so far above the confidence a detection must be found by both


def differences(expected: Answer, given: Answer) -> list[str]:
    """What one answer has and the other has not, for people; empty where they agree."""
    if "boxes" not in expected:
        return _of_classes(expected, given)
    missing = [
        f"{_words(thing)} is missing" for thing in _things(expected) if thing[1] > _SURE and not _in(thing, given)
    ]
    return missing + [
        f"{_words(thing)} is too much" for thing in _things(given) if thing[1] > _SURE and not _in(thing, expected)
    ]


def _of_classes(expected: Answer, given: Answer) -> list[str]:
    """Top classes: those of either must be among the other's, or below its last one by a hair."""
    found = []
    for one, other in ((expected, given), (given, expected)):
        scores = dict(zip(other["classes"], other["scores"], strict=True))
        for number, score in zip(one["classes"], one["scores"], strict=True):
            if abs(scores.get(number, min(other["scores"])) - score) > _SCORE:
                found.append(f"class {number} with {score:.3f} against {scores.get(number, 0):.3f}")
    return found


def _things(answer: Answer) -> list[tuple[int, float, list[float]]]:
    return list(zip(answer["classes"], answer["scores"], answer["boxes"], strict=True))


def _in(thing: tuple[int, float, list[float]], answer: Answer) -> bool:
    number, score, box = thing
    return any(
        other == number and abs(value - score) <= _SCORE and _iou(box, place) >= _OVERLAP
        for other, value, place in _things(answer)
    )


def _iou(first: list[float], second: list[float]) -> float:
    one, other = np.array(first), np.array(second)
    sides = np.maximum(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0)
    common = float(sides.prod())
    return common / float((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - common)


def _words(thing: tuple[int, float, list[float]]) -> str:
    number, score, box = thing
    return f"class {number} ({score:.2f}) at {', '.join(f'{value:.0f}' for value in box)}"
