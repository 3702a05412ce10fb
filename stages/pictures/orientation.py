"""EXIF orientation: turning a frame the way its picture was taken (EXIF 2.32, tag 0x0112)."""

from __future__ import annotations

import numpy as np

from stages.frame import Frame
from stages.opencv import cv2

MIRRORED_X = frozenset({2, 3, 6, 7})
MIRRORED_Y = frozenset({3, 4, 7, 8})
TRANSPOSED = frozenset({5, 6, 7, 8})
"""Transposition comes first; which axes of its outcome are then mirrored is what the two other sets say."""

_FLIPS = {2: 1, 3: -1, 4: 0}
_TURNS = {6: cv2.ROTATE_90_CLOCKWISE, 8: cv2.ROTATE_90_COUNTERCLOCKWISE}


def turn(frame: Frame, orientation: int, turned: Frame) -> None:
    """Write `frame`, uint8 [h, w, 3], as `orientation` 2 to 8 wants it into `turned`, transposed in shape from 5 on."""
    if orientation in _FLIPS:
        cv2.flip(frame, _FLIPS[orientation], dst=turned)
    elif orientation in _TURNS:
        cv2.rotate(frame, _TURNS[orientation], dst=turned)
    else:
        cv2.transpose(frame, dst=turned)
        if orientation == 7:
            cv2.flip(turned, -1, dst=turned)


def turned(frame: Frame, orientation: int) -> Frame:
    """`frame` itself where it is the right way up, else a turned copy."""
    if orientation == 1:
        return frame
    height, width = frame.shape[:2]
    copy: Frame = np.empty((width, height, 3) if orientation in TRANSPOSED else frame.shape, np.uint8)
    turn(frame, orientation, copy)
    return copy
