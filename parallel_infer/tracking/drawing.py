"""Lines and zones drawn on a picture, with their counts."""

from __future__ import annotations

import cv2
import numpy as np

from parallel_infer.answers import drawing
from parallel_infer.tracking.counting import Counts, LineCount, ZoneCount, texts_of

_INK: drawing.Color = (0, 255, 255)  # yellow
_OPACITY = 0.15
_ARROW = 12.0  # widths of a line from it to the arrow's head


def draw_shapes(canvas: drawing.Frame, counts: Counts) -> None:
    """Lines and zones on `canvas`, uint8 [h, w, 3] BGR. A line's arrow points to where "in" is."""
    pen = drawing.Pen.for_frame(canvas)
    for zone in counts.zones:
        _draw_zone(canvas, zone, pen)
    for line in counts.lines:
        _draw_line(canvas, line, pen)


def draw_counts(canvas: drawing.Frame, counts: Counts) -> None:
    """The counts beside their lines and zones."""
    pen = drawing.Pen.for_frame(canvas)
    placed: list[drawing.Label] = []
    outlines = [line.points for line in counts.lines] + [zone.points for zone in counts.zones]
    for outline, text in zip(outlines, texts_of(counts), strict=True):
        placed.append(drawing.Label.beside(outline.astype(np.float32), text, _INK, pen, placed, canvas))
        placed[-1].draw(canvas, pen)


def _draw_line(canvas: drawing.Frame, line: LineCount, pen: drawing.Pen) -> None:
    start, end = line.points
    along = (end - start) / np.hypot(*(end - start))
    middle, right = (start + end) / 2, np.array([-along[1], along[0]])
    first, last = (tuple(np.rint(point).astype(int).tolist()) for point in (start, end))
    tail, head = (tuple(np.rint(point).astype(int).tolist()) for point in (middle, middle + _ARROW * pen.line * right))
    for color, width in ((drawing.EDGE, pen.line + 2 * max(1, pen.line // 2)), (_INK, pen.line)):
        cv2.line(canvas, first, last, color, width, cv2.LINE_AA)
        cv2.arrowedLine(canvas, tail, head, color, width, cv2.LINE_AA, tipLength=0.4)


def _draw_zone(canvas: drawing.Frame, zone: ZoneCount, pen: drawing.Pen) -> None:
    points = [np.rint(zone.points).astype(np.int32)]
    tinted = cv2.fillPoly(canvas.copy(), points, _INK)
    cv2.addWeighted(tinted, _OPACITY, canvas, 1 - _OPACITY, 0, dst=canvas)
    for color, width in ((drawing.EDGE, pen.line + 2 * max(1, pen.line // 2)), (_INK, pen.line)):
        cv2.polylines(canvas, points, True, color, width, cv2.LINE_AA)
