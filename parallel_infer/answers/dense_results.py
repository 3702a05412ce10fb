"""Answers that cover the whole picture, as plain values: class maps, maps of numbers, vectors."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
TASKS = ("semantic", "map", "embedding")


def plain(
    task: str, arrays: Mapping[str, Array], names: list[str], masks: list[dict[str, Any]] | None, pixels: int
) -> dict[str, Any]:
    """What the result map says of an answer of one of these `TASKS`, besides the picture.

    `names` are those of the classes, `masks` their run lengths if there are any, `pixels` the picture's number of them.
    """
    if task == "embedding":
        return {"embedding": arrays["embedding"].tolist()}
    if task != "map":
        return _classes(arrays, names, masks, pixels)
    score = {"confidence": float(arrays["scores"][0])} if len(arrays.get("scores", ())) else {}
    return {"map": _numbers(arrays), **score}


def _classes(
    arrays: Mapping[str, Array], names: list[str], masks: list[dict[str, Any]] | None, pixels: int
) -> dict[str, Any]:
    rows = [
        {"class": name, "class_id": number, "area": area, "share": area / max(1, pixels)}
        for name, number, area in zip(names, arrays["classes"].tolist(), arrays["areas"].tolist(), strict=True)
    ]
    for row, rle in zip(rows, masks or (), strict=False):
        row |= {"rle": rle, "mask_format": "rle"}
    result: dict[str, Any] = {"predictions": rows}
    if "class_map_png" in arrays:
        result["segmentation_mask"] = _base64(arrays["class_map_png"])
        result["class_map"] = {str(row["class_id"]): row["class"] for row in rows}
    return result


def _numbers(arrays: Mapping[str, Array]) -> dict[str, Any]:
    if "map_png" in arrays:
        least, most = arrays["range"].tolist()
        return {"min": least, "max": most, "png": _base64(arrays["map_png"])}
    numbers = arrays["map"]
    height, width = numbers.shape
    found = {"min": float(numbers.min()), "max": float(numbers.max()), "mean": float(numbers.mean(dtype=np.float64))}
    return {"width": width, "height": height, **found}


def _base64(encoded: Array) -> str:
    return base64.b64encode(encoded.tobytes()).decode("ascii")


def class_map_from_runs(masks: list[dict[str, Any]], classes: list[int]) -> Array:
    """The class map, uint16 [h, w], that the run lengths of all classes stand for; where no class is, 65535."""
    height, width = masks[0]["size"] if masks else (0, 0)
    columns = np.full(height * width, 65535, np.uint16)
    for number, mask in zip(classes, masks, strict=True):
        ends = np.cumsum(_counts(mask["counts"].encode("ascii")))
        for start, end in zip(ends[::2].tolist(), ends[1::2].tolist(), strict=False):
            columns[start:end] = number
    return columns.reshape(width, height).T


def _counts(text: bytes) -> list[int]:
    """COCO's compressed run lengths: groups of five bits; from the fourth on the difference to the one two before."""
    counts: list[int] = []
    number = shift = 0
    for letter in text:
        digit = letter - 48
        number |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            if digit & 16:
                number -= 1 << shift
            counts.append(number + counts[-2] if len(counts) > 2 else number)
            number = shift = 0
    return counts
