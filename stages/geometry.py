"""How a frame became a row, and the way back.

A `Geometry` is an axis-aligned affine map per axis: `row = frame * scale + offset`. Pixel coordinates are continuous:
a frame of width W spans 0..W, and its first pixel covers 0..1, so resizing W to w is `scale = w / W, offset = 0`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class Geometry(NamedTuple):
    """Frame size in pixels (after EXIF orientation) and the map from frame to row coordinates."""

    width: float
    height: float
    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float

    def boxes_to_frame(self, boxes: Floats) -> Floats:
        """Map xyxy boxes, float32 [n, 4] in row pixels, to frame pixels. Boxes are not clipped."""
        scale = np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y], np.float32)
        offset = np.array([self.offset_x, self.offset_y, self.offset_x, self.offset_y], np.float32)
        return (boxes - offset) / scale

    def clip(self, points: Floats) -> Floats:
        """The points, float32 [..., 2] in frame pixels, moved into the frame in place: 0 to its width or height."""
        np.maximum(points, np.float32(0), out=points)
        return np.minimum(points, np.array([self.width, self.height], np.float32), out=points)

    def points_to_frame(self, points: Floats) -> Floats:
        """Map points, float32 [..., 2] in row pixels, to frame pixels."""
        scale = np.array([self.scale_x, self.scale_y], np.float32)
        offset = np.array([self.offset_x, self.offset_y], np.float32)
        return (points - offset) / scale

    def rotated_to_frame(self, boxes: Floats, angles: Floats) -> tuple[Floats, Floats]:
        """Map rotated boxes to frame pixels: float32 [n, 4] centre, width and height, and float32 [n] radians.

        Where the axes scale differently a rectangle becomes a parallelogram; the answer is the rectangle along its
        first side with its area.
        """
        centres = self.points_to_frame(boxes[:, :2])
        side = np.stack((np.cos(angles) / self.scale_x, np.sin(angles) / self.scale_y), axis=1)
        length = np.hypot(side[:, 0], side[:, 1])
        width, height = boxes[:, 2] * length, boxes[:, 3] / (length * self.scale_x * self.scale_y)
        mapped = np.concatenate((centres, np.stack((width, height), axis=1)), axis=1)
        return mapped.astype(np.float32), np.arctan2(side[:, 1], side[:, 0]).astype(np.float32)
