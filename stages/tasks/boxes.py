"""Boxes of found objects as an answer holds them: within the picture, so that whoever crops with them gets a crop."""

from __future__ import annotations

import numpy as np

from stages.candidates import Candidates, Floats
from stages.geometry import Geometry


def boxes_in_frame(found: Candidates, geometry: Geometry) -> tuple[Candidates, Floats]:
    """The objects that are in the picture, and their boxes, float32 [n, 4] xyxy in frame pixels, cut off at its edges.

    Ultralytics and Roboflow cut boxes off alike. A box that lies beside the picture, in the padding of its row or
    beyond, is no object of this picture: nothing could be cropped with what were left of it.
    """
    boxes = geometry.boxes_to_frame(found.boxes)
    seen = ((boxes[:, 2:] > 0) & (boxes[:, :2] < (geometry.width, geometry.height))).all(axis=1)
    geometry.clip(boxes.reshape(-1, 2, 2))
    if seen.all():
        return found, boxes
    return found.take(np.flatnonzero(seen)), boxes[seen]
