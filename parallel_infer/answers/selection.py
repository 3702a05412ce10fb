"""Some of the objects of an answer, with everything that belongs to them."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from parallel_infer.answers.answer import Answer
from parallel_infer.answers.result_map import Array

_OF_OBJECTS = ("boxes", "scores", "classes", "keypoints", "angles", "mask_objects", "mask_rle_sizes", "track_ids")


def selected(arrays: Mapping[str, Array], rows: npt.NDArray[np.bool_]) -> dict[str, Array]:
    """The arrays of an answer with boxes, for the objects in `rows` [n]; the others are left out."""
    found = {name: array[rows] if name in _OF_OBJECTS else array for name, array in arrays.items()}
    if "mask_points" in arrays:
        rings = np.repeat(rows, arrays["mask_objects"])
        found["mask_rings"] = arrays["mask_rings"][rings]
        found["mask_points"] = arrays["mask_points"][np.repeat(rings, arrays["mask_rings"])]
    if "mask_rle" in arrays:
        found["mask_rle"] = arrays["mask_rle"][np.repeat(rows, arrays["mask_rle_sizes"])]
    return found


def with_numbers(answer: Answer, numbers: npt.NDArray[np.int64], rows: npt.NDArray[np.bool_]) -> Answer:
    """An answer with `numbers` [n] as its `track_ids`, and of its objects, and their children, only those in `rows`."""
    found = copy.copy(answer)
    found.arrays = selected({**answer.arrays, "track_ids": numbers}, rows)
    found.children = [children for children, kept in zip(answer.children, rows.tolist(), strict=False) if kept]
    return found
