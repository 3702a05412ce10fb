"""More pictures out of a few: what quantizing looks at where it was given little. Pure.

Three photographs hold some ten objects, of which one more or less found is a tenth; and they do not show every range
that values inside a model take.
"""

from __future__ import annotations

import itertools

import cv2
import numpy as np

ENOUGH = 30  # pictures and views of them
_MOST = 9  # views of one picture
_PART = 3 / 4  # of width and height that a view shows
_QUALITY = 95  # of JPEG, 0 to 100


def views_each(pictures: int) -> int:
    """How many views of each of so many pictures are wanted, for there to be enough."""
    return min(_MOST, max(0, -(-ENOUGH // pictures) - 1)) if pictures else 0


def views(payload: bytes, count: int) -> list[bytes]:
    """JPEGs of up to `count` views of an encoded picture, in this order: mirrored, its four corners, these mirrored.

    None of a picture in a format that OpenCV does not read.
    """
    frame = cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_COLOR) if count else None
    if frame is None:
        return []
    height, width = (max(1, round(length * _PART)) for length in frame.shape[:2])
    corners = [
        frame[top : top + height, left : left + width]
        for top in (0, frame.shape[0] - height)
        for left in (0, frame.shape[1] - width)
    ]
    shown = itertools.chain([frame[:, ::-1]], corners, (corner[:, ::-1] for corner in corners))
    return [
        cv2.imencode(".jpg", view, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
        for view in itertools.islice(shown, count)
    ]
