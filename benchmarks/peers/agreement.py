"""Whether two servers found the same in a picture."""

from __future__ import annotations

from typing import Any

import numpy as np

Answer = dict[str, Any]

_OVERLAP = 0.99  # IoU of two boxes that are the same
_SCORE = 0.01  # most that two scores of the same thing differ: rows are the same but for a grey level here and there
_CHILD_SCORE = 0.02  # the same of an object cut out: its box may differ by a pixel
_SURE = 0.25 + _SCORE  # so far above the confidence a detection must be found by both


def differences(expected: Answer, given: Answer) -> list[str]:
    """What one answer has and the other has not, for people; empty where they agree."""
    if "boxes" not in expected:
        return _of_classes(expected, given, _SCORE)
    found = [
        f"{_words(thing)} is too much"
        for thing in _things(given)
        if thing[1] > _SURE and _place(thing, expected) is None
    ]
    for number, thing in enumerate(_things(expected)):
        place = _place(thing, given)
        if place is None:
            found += [f"{_words(thing)} is missing"] if thing[1] > _SURE else []
        elif "children" in expected:
            of_it = _of_classes(expected["children"][number], given["children"][place], _CHILD_SCORE)
            found += [f"{_words(thing)}: {text}" for text in of_it]
    return found


def _of_classes(expected: Answer, given: Answer, most: float) -> list[str]:
    """Top classes: those of either must be among the other's, or below its last one by a hair."""
    found = []
    for one, other in ((expected, given), (given, expected)):
        scores = dict(zip(other["classes"], other["scores"], strict=True))
        for number, score in zip(one["classes"], one["scores"], strict=True):
            if abs(scores.get(number, min(other["scores"])) - score) > most:
                found.append(f"class {number} with {score:.3f} against {scores.get(number, 0):.3f}")
    return found


def _things(answer: Answer) -> list[tuple[int, float, list[float]]]:
    return list(zip(answer["classes"], answer["scores"], answer["boxes"], strict=True))


def _place(thing: tuple[int, float, list[float]], answer: Answer) -> int | None:
    """Where the same thing stands in the answer."""
    number, score, box = thing
    for place, (other, value, where) in enumerate(_things(answer)):
        if other == number and abs(value - score) <= _SCORE and _iou(box, where) >= _OVERLAP:
            return place
    return None


def _iou(first: list[float], second: list[float]) -> float:
    one, other = np.array(first), np.array(second)
    sides = np.maximum(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0)
    common = float(sides.prod())
    return common / float((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - common)


def _words(thing: tuple[int, float, list[float]]) -> str:
    number, score, box = thing
    return f"class {number} ({score:.2f}) at {', '.join(f'{value:.0f}' for value in box)}"
