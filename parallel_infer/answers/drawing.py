"""Answers drawn on pictures, legible on any background and at any size.

Lines have a dark edge and labels a filled plate whose text is black or white, whichever stands out; thickness and
text size follow the picture's size; labels stay inside the picture.
"""

from __future__ import annotations

import colorsys
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from parallel_infer.answers.answer import Answer, Parts
from parallel_infer.answers.summary import in_words
from parallel_infer.errors import InferError

Frame = npt.NDArray[np.uint8]
Color = tuple[int, int, int]  # BGR

# Pairs of joints of the COCO person skeleton, zero-based (COCO keypoint annotations, "skeleton").
COCO_SKELETON = (
    *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10)),
    *((1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
)

_FONT = cv2.FONT_HERSHEY_SIMPLEX
EDGE: Color = (24, 24, 24)
_PLAIN: Color = (176, 176, 176)  # of what is not followed, among what is
_COCO_JOINTS = 17
_MASK_OPACITY = 0.45
_VISIBLE = 0.5  # joints of lower confidence are guesses, and are left out
_SUBPIXEL = 4  # fractional bits of coordinates handed to OpenCV
_TEXT_PIXELS = 22  # height of capital letters at font scale 1
_LINES = 5  # classes listed for a classification
_FAR = 1 << 16  # pixels; coordinates beyond would overflow OpenCV's fixed point


class Pen(NamedTuple):
    """Sizes that fit a picture."""

    line: int  # pixels
    text: float  # OpenCV's font scale
    stroke: int  # of letters, in pixels

    @classmethod
    def for_frame(cls, frame: Frame) -> Pen:
        """Lines of 1/320 and capital letters of 1/55 of the mean side, but letters of at least 8 pixels."""
        side = float(np.sqrt(frame.shape[0] * frame.shape[1]))
        text = max(8.0, side / 55) / _TEXT_PIXELS
        return cls(max(1, round(side / 320)), text, max(1, round(2 * text)))


class Label(NamedTuple):
    """A filled plate with a text, inside the picture; all in pixels."""

    text: str
    color: Color
    x: int
    y: int
    width: int
    height: int
    padding: int
    ascent: int

    @classmethod
    def of(cls, text: str, color: Color, pen: Pen, canvas: Frame) -> Label:
        """A label at the top left, its text cut to the width of the picture."""
        padding = max(2, round(6 * pen.text))
        text = _fitting(_printable(text), canvas.shape[1] - 2 * padding, pen)
        (width, ascent), descent = cv2.getTextSize(text, _FONT, pen.text, pen.stroke)
        return cls(text, color, 0, 0, width + 2 * padding, ascent + descent + padding, padding, ascent)

    @classmethod
    def beside(
        cls,
        outline: npt.NDArray[np.float32],
        text: str,
        color: Color,
        pen: Pen,
        taken: list[Label],
        canvas: Frame,
    ) -> Label:
        """A label above, else inside, else below `outline`, float32 [k, 2], where it hides none of `taken`."""
        label = cls.of(text, color, pen, canvas)
        bounded = np.nan_to_num(np.clip(outline, -_FAR, _FAR)).round().astype(int)
        (left, top), (right, bottom) = bounded.min(0).tolist(), bounded.max(0).tolist()
        wished = [(left, top - label.height), (left, top), (left, bottom), (right - label.width, top - label.height)]
        places = [label._moved(x, y, canvas) for x, y in wished]
        return next((place for place in places if not any(map(place._hides, taken))), places[0])

    def draw(self, canvas: Frame, pen: Pen) -> None:
        """Put it on the picture."""
        end = self.x + self.width - 1, self.y + self.height - 1
        cv2.rectangle(canvas, (self.x, self.y), end, self.color, cv2.FILLED)
        start = self.x + self.padding, self.y + self.ascent + self.padding // 2
        cv2.putText(canvas, self.text, start, _FONT, pen.text, _text_color(self.color), pen.stroke, cv2.LINE_AA)

    def _moved(self, x: int, y: int, canvas: Frame) -> Label:
        height, width = canvas.shape[:2]
        return self._replace(x=max(0, min(x, width - self.width)), y=max(0, min(y, height - self.height)))

    def _hides(self, other: Label) -> bool:
        beside = self.x >= other.x + other.width or other.x >= self.x + self.width
        return not (beside or self.y >= other.y + other.height or other.y >= self.y + self.height)


def draw(frame: Frame, answer: Answer) -> Frame:
    """A copy of `frame`, uint8 [h, w, 3] BGR (or [h, w] gray), with `answer` on it; always [h, w, 3].

    Where the frame is not of the answer's size (a preview), coordinates are scaled. Tensors and vectors draw nothing.
    Raises ValueError for what is no frame, and for a frame that lies on its side.
    """
    if not isinstance(frame, np.ndarray):
        raise ValueError(f"a frame is uint8 [h, w, 3] or [h, w], not a {type(frame).__name__}")
    if frame.dtype != np.uint8 or frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[2] not in (1, 3)):
        raise ValueError(f"a frame is uint8 [h, w, 3] or [h, w], not {frame.dtype} {list(frame.shape)}")
    if frame.shape[:2] == (answer.width, answer.height) != (answer.height, answer.width):
        raise ValueError(
            f"the frame lies on its side: it is {frame.shape[1]}x{frame.shape[0]}, and the answer is about "
            f"{answer.width}x{answer.height}; read the picture with parallel_infer.read_picture, which turns it"
        )
    canvas = cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR) if frame.ndim == 2 or frame.shape[2] == 1 else frame.copy()
    canvas = np.ascontiguousarray(canvas, np.uint8)
    pen = Pen.for_frame(canvas)
    labels: list[Label] = []  # of all parts, the surest first
    for part in answer.parts.values() if answer.task == "fan" else (answer,):
        if isinstance(part, Answer):
            _draw_one(canvas, part, pen, labels)
    for label in reversed(labels):  # last, because anything later would cover them
        label.draw(canvas, pen)
    if answer.still:
        label = Label.of("still", EDGE, pen, canvas)
        label._moved(canvas.shape[1], canvas.shape[0], canvas).draw(canvas, pen)  # at the bottom right
    return canvas


def _draw_one(canvas: Frame, answer: Answer, pen: Pen, labels: list[Label]) -> None:
    """All but the labels, which are added to `labels` where they hide none of those that are there."""
    if answer.task == "classify":
        labels += lines(list(zip(_class_texts(answer), answer.classes.tolist(), strict=True)), pen, canvas, labels)
    elif answer.task == "text":
        told = [(f"{answer.text} {answer.to_dict()['confidence']:.2f}", 0)] if answer.text else []
        labels += lines(told, pen, canvas, labels)
    elif answer.task in ("semantic", "map"):
        from parallel_infer.answers import drawing_dense

        labels += lines(drawing_dense.draw(canvas, answer), pen, canvas, labels)
    elif len(answer.boxes):
        scale = np.array([canvas.shape[1] / (answer.width or 1), canvas.shape[0] / (answer.height or 1)], np.float32)
        _draw_objects(canvas, answer, pen, scale if answer.width and answer.height else np.ones(2, np.float32), labels)


def color_of(number: int) -> Color:
    """The colour of a class: always the same, and far from those of the numbers next to it."""
    # Steps of the golden ratio spread hues evenly, however many there are; three tones tell apart what comes close.
    hue = (number * 0.61803398875) % 1
    saturation, value = ((0.85, 1.0), (0.55, 1.0), (0.9, 0.75))[number // 5 % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * blue), round(255 * green), round(255 * red)


def _draw_objects(canvas: Frame, answer: Answer, pen: Pen, scale: npt.NDArray[np.float32], labels: list[Label]) -> None:
    """First all masks, then outlines, which would cover them; of what was found in an object the same."""
    numbers = answer.classes if answer.track_ids is None else answer.track_ids  # what is followed keeps its colour
    colors = [color_of(number) if number >= 0 else _PLAIN for number in numbers.tolist()]
    turned = answer.corners
    outlines = [box * scale for box in (_corners(answer.boxes) if turned is None else turned)]
    for rings, color in zip(answer.masks or (), colors, strict=False):
        _draw_mask(canvas, [ring * scale for ring in rings], color, pen)
    for outline, color in zip(outlines, colors, strict=True):
        _draw_outline(canvas, outline, color, pen)
    for joints in answer.keypoints if answer.keypoints is not None else ():
        _draw_skeleton(canvas, joints[:, :2] * scale, joints[:, 2], pen)
    children = answer.children or [{} for _ in outlines]
    texts = [text + _said_of(each) for text, each in zip(_object_texts(answer), children, strict=True)]
    for index in np.argsort(-answer.scores, kind="stable").tolist():  # the surest choose their places first
        labels.append(Label.beside(outlines[index], texts[index], colors[index], pen, labels, canvas))
    for child in (child for each in children for child in each.values()):
        if isinstance(child, Answer) and len(child.boxes):
            _draw_objects(canvas, child, pen, scale, labels)


def _draw_mask(canvas: Frame, rings: list[npt.NDArray[np.float32]], color: Color, pen: Pen) -> None:
    polygons = [_fixed(ring) for ring in rings if len(ring) >= 3]
    if not polygons:
        return
    points = np.concatenate(polygons) >> _SUBPIXEL
    left, top = np.clip(points.min(0), 0, None)
    right, bottom = np.minimum(points.max(0) + 2, (canvas.shape[1], canvas.shape[0]))
    if left >= right or top >= bottom:
        return
    area = canvas[top:bottom, left:right]
    tinted = area.copy()
    origin = np.array([left, top], np.int32) << _SUBPIXEL
    cv2.fillPoly(tinted, [polygon - origin for polygon in polygons], color, cv2.LINE_AA, _SUBPIXEL)
    cv2.addWeighted(tinted, _MASK_OPACITY, area, 1 - _MASK_OPACITY, 0, dst=area)
    cv2.polylines(canvas, polygons, True, color, max(1, pen.line // 2), cv2.LINE_AA, _SUBPIXEL)


def _draw_outline(canvas: Frame, corners: npt.NDArray[np.float32], color: Color, pen: Pen) -> None:
    polygon = [_fixed(corners)]
    cv2.polylines(canvas, polygon, True, EDGE, pen.line + 2 * max(1, pen.line // 2), cv2.LINE_AA, _SUBPIXEL)
    cv2.polylines(canvas, polygon, True, color, pen.line, cv2.LINE_AA, _SUBPIXEL)


def _draw_skeleton(
    canvas: Frame, joints: npt.NDArray[np.float32], confidence: npt.NDArray[np.float32], pen: Pen
) -> None:
    points = _fixed(joints).tolist()
    seen = (confidence >= _VISIBLE).tolist()
    skeleton = COCO_SKELETON if len(points) == _COCO_JOINTS else ()
    bones = [(first, second) for first, second in skeleton if seen[first] and seen[second]]
    edge = max(1, pen.line // 2)
    for first, second in bones:
        cv2.line(canvas, points[first], points[second], EDGE, pen.line + 2 * edge, cv2.LINE_AA, _SUBPIXEL)
    for number, (first, second) in enumerate(bones):
        cv2.line(canvas, points[first], points[second], color_of(number), pen.line, cv2.LINE_AA, _SUBPIXEL)
    for number, point in enumerate(points):
        if seen[number]:
            radius = (pen.line + edge) << _SUBPIXEL
            cv2.circle(canvas, point, radius + (edge << _SUBPIXEL), EDGE, cv2.FILLED, cv2.LINE_AA, _SUBPIXEL)
            cv2.circle(canvas, point, radius, color_of(number), cv2.FILLED, cv2.LINE_AA, _SUBPIXEL)


def _object_texts(answer: Answer) -> list[str]:
    numbers = [-1] * len(answer.scores) if answer.track_ids is None else answer.track_ids.tolist()
    shown = [f" #{number}" if number >= 0 else "" for number in numbers]
    found = zip(answer.names, shown, answer.scores.tolist(), strict=True)
    return [f"{name}{number} {score:.2f}" for name, number, score in found]


def _said_of(children: Parts) -> str:
    """What the next models say about an object, but for what is drawn itself."""
    told = (found for found in children.values() if isinstance(found, InferError) or not _shows_itself(found))
    return "".join(f", {in_words(found)}" for found in told)


def _shows_itself(found: Answer) -> bool:
    """Whether it is drawn, or is nothing to be looked at, as a vector."""
    return len(found.boxes) > 0 or found.embedding is not None


def _class_texts(answer: Answer) -> list[str]:
    return [f"{name} {score:.2f}" for name, score in zip(answer.names, answer.scores.tolist(), strict=True)]


def lines(told: list[tuple[str, int]], pen: Pen, canvas: Frame, taken: list[Label]) -> list[Label]:
    """Texts in the colours of their numbers, one line each from the top left, below `taken`, as many as fit."""
    found: list[Label] = []
    for text, number in told[:_LINES]:
        label = Label.of(text, color_of(number), pen, canvas)
        while (hidden := next(filter(label._hides, (*taken, *found)), None)) is not None:
            label = label._replace(y=hidden.y + hidden.height)
        if label.y and label.y + label.height > canvas.shape[0]:
            break
        found.append(label)
    return found


def _fitting(text: str, width: int, pen: Pen) -> str:
    """`text`, shortened until it is at most `width` pixels wide."""
    if cv2.getTextSize(text, _FONT, pen.text, pen.stroke)[0][0] <= width:
        return text
    name, _, score = text.rpartition(" ")
    while name and cv2.getTextSize(f"{name}. {score}", _FONT, pen.text, pen.stroke)[0][0] > width:
        name = name[:-1]
    return f"{name}. {score}" if name else score


def _printable(text: str) -> str:
    """OpenCV's own fonts hold ASCII only and show anything else as question marks, one per byte."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text)


def _text_color(background: Color) -> Color:
    """Black or white: whichever has more contrast, by relative luminance (ITU-R BT.601 weights)."""
    blue, green, red = background
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)


def _corners(boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Corners, float32 [n, 4, 2], of boxes [n, 4] xyxy, clockwise from the top left."""
    return boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)


def _fixed(points: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """Points in OpenCV's fixed point. Pixel centres are whole numbers there and half numbers here."""
    shifted = np.nan_to_num(np.clip(points, -_FAR, _FAR)) - 0.5
    return np.asarray((shifted * (1 << _SUBPIXEL)).round(), np.int32)
