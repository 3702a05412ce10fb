"""What an exporter wrote into a model's `metadata_props`: Ultralytics' keys, and those of the shipped zoo.

Every value is text that holds a Python literal. A value that cannot be read is reported and left out.
"""

from __future__ import annotations

import ast
import contextlib
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from stages.families.facts import Metadata, Triple
from stages.recognise.classes import names_from

_UNREADABLE = (ValueError, TypeError, SyntaxError, ArithmeticError, MemoryError, RecursionError)
MOST_TEXT = 1_000_000  # characters of one value; 1000 class names take about 20,000
_TASKS = {
    "pose": "keypoints",
    "keypoint-detection": "keypoints",
    "pose-estimation": "keypoints",
    "detection": "detect",
    "object-detection": "detect",
    "classification": "classify",
    "image-classification": "classify",
    "image_classification": "classify",
    "segmentation": "segment",
    "instance-segmentation": "segment",
    "seg": "segment",
    "oriented-object-detection": "obb",
    "semantic-segmentation": "semantic",
    "depth-estimation": "map",
    "depth": "map",
    "feature-extraction": "embedding",
    "image-feature-extraction": "embedding",
}
_PLAIN_NAMES = re.compile(r"[\w .,/&+-]+(?:\n[\w .,/&+-]+)*\n?")
_NAMES = ("labels", "classes", "class_names", "categories", "id2label", "label_names", "model_labels")  # other keys
_RESIZES = ("stretch", "letterbox", "letterbox-corner", "crop")
_FILTERS = ("linear", "bilinear", "bicubic")


def parse_metadata(properties: Mapping[str, str]) -> Metadata:
    """Read the keys that are known; others are ignored. Never raises."""
    unreadable: list[str] = []
    fields: dict[str, Any] = {}
    for key, read in _READERS.items():
        if key in properties:
            try:
                fields[key] = read(properties[key])
            except _UNREADABLE:
                unreadable.append(key)
    if "names" not in properties:
        _other_names(properties, fields)
    arguments = fields.pop("args", {})
    exported = arguments.get("batch")
    if "batch" not in fields and isinstance(exported, int) and exported >= 1:
        fields["batch"] = exported
    return Metadata(**fields, nms=arguments.get("nms") is True, unreadable=tuple(unreadable))


def _other_names(properties: Mapping[str, str], fields: dict[str, Any]) -> None:
    """Names under a key of another exporter, where they can be read; nobody promised that they can."""
    for key in _NAMES:
        with contextlib.suppress(*_UNREADABLE):
            fields["names"] = _names(properties.get(key, ""))
            return


def _literal(text: str) -> Any:
    if len(text) > MOST_TEXT:
        raise ValueError("too long")
    return ast.literal_eval(text.strip())


def _task(text: str) -> str:
    task = text.strip().strip("\"'")
    return _TASKS.get(task.lower(), task)


def _names(text: str) -> tuple[str, ...]:
    if len(text) > MOST_TEXT:
        raise ValueError("too long")
    if text.strip()[:1] not in ("[", "{", "(") and not _PLAIN_NAMES.fullmatch(text):
        raise ValueError("neither a list nor a map, nor plain names")
    names = names_from(text)
    if not names:
        raise ValueError("no names")
    return names


def _lines(text: str) -> tuple[str, ...]:
    """One a line; spaces count, because one of them may be a character that a model reads."""
    if len(text) > MOST_TEXT:
        raise ValueError("too long")
    lines = text.split("\n")
    return tuple(lines[:-1] if lines and not lines[-1] else lines)


def _imgsz(text: str) -> tuple[int, int]:
    value = _literal(text)
    height, width = value if isinstance(value, list | tuple) else (value, value)
    if not 1 <= int(height) <= 16384 or not 1 <= int(width) <= 16384:
        raise ValueError("out of range")
    return int(height), int(width)


def _count(text: str) -> int:
    value = int(_literal(text))
    if value < 1:
        raise ValueError("out of range")
    return value


def _kpt_shape(text: str) -> tuple[int, int]:
    points, values = (int(number) for number in _literal(text))
    if not 1 <= points <= 1024 or values not in (2, 3):
        raise ValueError("out of range")
    return points, values


def _flag(text: str) -> bool:
    word = text.strip().strip("\"'").lower()
    if word not in ("true", "false"):
        raise TypeError("not a truth value")
    return word == "true"


def _arguments(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = _literal(text)
    if not isinstance(value, dict):
        raise TypeError("not a map")
    return value


def _resize(text: str) -> str:
    if text.strip() not in _RESIZES:
        raise ValueError("unknown resize")
    return text.strip()


def _filter(text: str) -> str:
    if text.strip() not in _FILTERS:
        raise ValueError("unknown filter")
    return text.strip()


def _fraction(text: str) -> float:
    value = float(_literal(text))
    if not 0.0 < value <= 1.0:
        raise ValueError("out of range")
    return value


def _triple(text: str) -> Triple:
    value = _literal(text)
    first, second, third = (float(number) for number in (value if isinstance(value, list | tuple) else [value] * 3))
    if not all(map(math.isfinite, (first, second, third))):
        raise ValueError("not finite")
    return first, second, third


def _positive(text: str) -> Triple:
    values = _triple(text)
    if min(values) <= 0.0:
        raise ValueError("not positive")
    return values


_READERS: dict[str, Callable[[str], Any]] = {
    "task": _task,
    "names": _names,
    "imgsz": _imgsz,
    "batch": _count,
    "kpt_shape": _kpt_shape,
    "end2end": _flag,
    "args": _arguments,
    "head": str.strip,
    "description": str.strip,
    "character": _lines,
    "resize": _resize,
    "crop_fraction": _fraction,
    "filter": _filter,
    "mean": _triple,
    "std": _positive,
}
