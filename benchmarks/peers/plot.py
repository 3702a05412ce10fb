"""The ratios as a picture, drawn with OpenCV: one bar per peer and load, the line is where both are equally fast."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

_BAR, _GAP, _LEFT, _RIGHT, _TOP = 16, 4, 330, 90, 40  # pixels
_LENGTH = 560  # of the longest bar
_INK, _LINE = (40, 40, 40), (150, 150, 150)
_COLOURS = ((180, 119, 31), (14, 127, 255), (44, 160, 44), (189, 103, 148), (75, 86, 140))  # BGR, one per load

Canvas = npt.NDArray[np.uint8]


def write_plot(summaries: Sequence[dict[str, Any]], path: Path) -> None:
    """Write a PNG of all ratios; nothing where there is none."""
    bars = [(pair, point) for pair in summaries for point in pair["points"] if "ratio" in point]
    if not bars:
        return
    height = _TOP + len(bars) * (_BAR + _GAP) + _GAP
    canvas: Canvas = np.full((height, _LEFT + _LENGTH + _RIGHT, 3), 255, np.uint8)
    scale = _LENGTH / max(1.0, *(point["highest"] for _, point in bars))
    _text(canvas, "ours / peer, pictures per second (line: equal; whisker: lowest and highest round)", 10, 20)
    loads = sorted({_load(point) for _, point in bars})
    for number, (pair, point) in enumerate(bars):
        y = _TOP + number * (_BAR + _GAP)
        colour = _COLOURS[loads.index(_load(point)) % len(_COLOURS)]
        _text(canvas, f"{pair['model']}, {pair['peer_title']}, {_load(point)}", 10, y + 12)
        cv2.rectangle(canvas, (_LEFT, y), (_at(point["ratio"], scale), y + _BAR), colour, cv2.FILLED)
        middle = y + _BAR // 2
        cv2.line(canvas, (_at(point["lowest"], scale), middle), (_at(point["highest"], scale), middle), _INK, 1)
        _text(canvas, f"{point['ratio']:.2f}", _at(point["highest"], scale) + 6, y + 12)
    cv2.line(canvas, (_at(1.0, scale), _TOP - 6), (_at(1.0, scale), height), _LINE, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), canvas)


def _load(point: dict[str, Any]) -> str:
    return "2x capacity" if point["kind"] == "overload" else f"{point['in_flight']} in flight"


def _at(ratio: float, scale: float) -> int:
    return _LEFT + round(ratio * scale)


def _text(canvas: Canvas, text: str, x: int, y: int) -> None:
    cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.4, _INK, 1, cv2.LINE_AA)
