"""Answers that cover the whole picture, drawn over it: classes in their colours, numbers as a colour map."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from parallel_infer.answers import drawing
from parallel_infer.answers.answer import Answer
from parallel_infer.answers.dense_results import class_map_from_runs

Frame = npt.NDArray[np.uint8]

_CLASSES_OPACITY = 0.5
_NUMBERS_OPACITY = 0.7
_NOTHING = 65535  # a class that is not listed


Lines = list[tuple[str, int]]  # texts, and the numbers of their colours


def draw(canvas: Frame, answer: Answer) -> Lines:
    """Draw a class map or a map of numbers on `canvas`, whatever form it was asked for in; what to write beside it."""
    return _draw_classes(canvas, answer) if answer.task == "semantic" else _draw_numbers(canvas, answer)


def _draw_classes(canvas: Frame, answer: Answer) -> Lines:
    labels = _resized(_class_map(answer), canvas)
    colors = np.zeros((_NOTHING + 1, 3), np.uint8)
    for number in answer.classes.tolist():
        colors[number] = drawing.color_of(number)
    tinted = colors[labels]
    shown = np.isin(labels, answer.classes)
    blended = cv2.addWeighted(tinted, _CLASSES_OPACITY, canvas, 1 - _CLASSES_OPACITY, 0)
    canvas[shown] = blended[shown]
    whole = max(1, answer.width * answer.height)
    areas = answer.areas.tolist() if answer.areas is not None else []
    texts = [f"{name} {100 * area / whole:.0f} %" for name, area in zip(answer.names, areas, strict=True)]
    return list(zip(texts, answer.classes.tolist(), strict=True))


def _class_map(answer: Answer) -> npt.NDArray[Any]:
    if answer.class_map is not None:
        return answer.class_map
    if "class_map_png" in answer.arrays:
        return np.asarray(cv2.imdecode(np.array(answer.arrays["class_map_png"]), cv2.IMREAD_UNCHANGED))
    return class_map_from_runs(answer.rle or [], answer.classes.tolist())


def _draw_numbers(canvas: Frame, answer: Answer) -> Lines:
    """The least number dark, the greatest bright (Inferno), over the picture."""
    if answer.map is not None:
        numbers = answer.map
    else:
        numbers = np.asarray(cv2.imdecode(np.array(answer.arrays["map_png"]), cv2.IMREAD_UNCHANGED), np.float32)
    least, most = float(numbers.min()), float(numbers.max())
    steps = (numbers - least) * np.float32(255 / (most - least) if most > least else 0.0)
    colored = cv2.applyColorMap(
        _resized(np.rint(steps).astype(np.uint8), canvas, cv2.INTER_LINEAR), cv2.COLORMAP_INFERNO
    )
    cv2.addWeighted(colored, _NUMBERS_OPACITY, canvas, 1 - _NUMBERS_OPACITY, 0, dst=canvas)
    found = answer.to_dict()["map"]
    scores = [(f"score {score:.3g}", 0) for score in answer.scores.tolist()]
    return [(f"{found['min']:.4g} to {found['max']:.4g}", 0), *scores]


def _resized(plane: npt.NDArray[Any], canvas: Frame, method: int = cv2.INTER_NEAREST) -> npt.NDArray[Any]:
    size = canvas.shape[1], canvas.shape[0]
    if plane.shape == canvas.shape[:2] or not plane.size:
        return plane
    return np.asarray(cv2.resize(np.ascontiguousarray(plane), size, interpolation=method))
