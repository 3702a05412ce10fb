"""Where boxes will be: a Kalman filter of constant speed, for any time between two frames.

State and noise as BoT-SORT has them (Aharon et al. 2022, "BoT-SORT: Robust Associations Multi-Pedestrian Tracking",
section 3.1): centre, width and height and their speeds, with noise in proportion to the size of the box. There a step
is a frame of videos with about 30 of them a second; here it is any time, and the noise grows in proportion to it. No
coordinate depends on another, so that each has a filter of its own, of two numbers, and all are computed at once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RATE = 30.0  # frames per second of the videos that the noise was chosen for
_PLACE = 1 / 20  # standard deviation of a place, as a part of the box's size
_SPEED = 1 / 160  # the same of what a speed changes in a frame
_SIZE = slice(2, 4)  # width and height
_SIZES = [2, 3, 2, 3]  # the size that goes with each coordinate
_LEAST = 1e-3  # pixels; what has no size at all would never be sure of anything


class Motion:
    """Boxes [n, 4] as (centre x, centre y, width, height), their speeds per frame, and how sure they are."""

    def __init__(self) -> None:
        self._state = np.zeros((5, 0, 4))  # places, speeds, variances of places, covariances, variances of speeds

    def add(self, boxes: Floats) -> None:
        """Follow further boxes [k, 4], whose speed is not known."""
        size, zero = boxes[:, _SIZES], np.zeros_like(boxes)
        begun = np.stack([boxes, zero, (2 * _PLACE * size) ** 2, zero, (10 * _SPEED * size) ** 2])
        self._state = np.concatenate([self._state, begun], 1)

    def keep(self, rows: npt.NDArray[np.bool_]) -> None:
        """Follow only these further."""
        self._state = self._state[:, rows]

    def predict(self, seconds: float, unseen: npt.NDArray[np.bool_]) -> None:
        """Let time pass. Boxes that were `unseen` last keep their size: its speed is a guess by now."""
        frames = seconds * RATE
        place, speed, place_variance, covariance, speed_variance = self._state
        speed[unseen, _SIZE] = 0
        size = place[:, _SIZES]
        place_variance += frames * (2 * covariance + frames * speed_variance + (_PLACE * size) ** 2)
        covariance += frames * speed_variance
        speed_variance += frames * (_SPEED * size) ** 2
        place += frames * speed
        place[:, _SIZE] = np.maximum(place[:, _SIZE], _LEAST)

    def correct(self, rows: npt.NDArray[np.int64], boxes: Floats) -> None:
        """Some of the boxes were seen at `boxes` [k, 4]."""
        place, speed, place_variance, covariance, speed_variance = self._state[:, rows]
        whole = place_variance + (_PLACE * place[:, _SIZES]) ** 2
        gain, speed_gain = place_variance / whole, covariance / whole
        self._state[:, rows] = (
            place + gain * (boxes - place),
            speed + speed_gain * (boxes - place),
            (1 - gain) * place_variance,
            (1 - gain) * covariance,
            speed_variance - speed_gain * covariance,
        )

    def distances(self, boxes: Floats) -> Floats:
        """Squared Mahalanobis distances [n, m] to boxes [m, 4]: how many deviations off they are in all coordinates."""
        place, variance = self._state[0], self._state[2]
        whole = variance + (_PLACE * place[:, _SIZES]) ** 2
        return np.asarray(((boxes[None] - place[:, None]) ** 2 / whole[:, None]).sum(-1))

    def rest(self) -> None:
        """Nothing moves."""
        self._state[1] = 0

    def boxes(self) -> Floats:
        """Where they are, xyxy [n, 4]."""
        place = self._state[0]
        return np.concatenate([place[:, :2] - place[:, _SIZE] / 2, place[:, :2] + place[:, _SIZE] / 2], 1)


def centred(boxes: npt.NDArray[np.floating]) -> Floats:
    """Boxes xyxy [n, 4] as (centre x, centre y, width, height)."""
    boxes = boxes.astype(np.float64)
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, np.maximum(boxes[:, 2:] - boxes[:, :2], _LEAST)], 1)
