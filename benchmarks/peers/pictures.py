"""The pictures that are sent: photographs as JPEG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

PICTURES = Path(__file__).resolve().parents[2] / "parallel_infer" / "zoo" / "pictures"
WIDTH, HEIGHT, QUALITY = 1280, 720, 90
_PER_PHOTO = 3


def photographs() -> list[bytes]:
    """The shipped photographs at their own sizes: what all servers must agree on."""
    return [_encoded(frame) for frame in frames()]


def workload() -> list[bytes]:
    """Different pictures of 1280x720 pixels, cut out of the photographs at several places."""
    pictures = []
    for frame in frames():
        height, width = frame.shape[:2]
        ratio = max(WIDTH / width, HEIGHT / height)
        large = cv2.resize(frame, (max(WIDTH, round(width * ratio)), max(HEIGHT, round(height * ratio))))
        for part in range(_PER_PHOTO):
            y = (large.shape[0] - HEIGHT) * part // (_PER_PHOTO - 1)
            x = (large.shape[1] - WIDTH) * part // (_PER_PHOTO - 1)
            pictures.append(_encoded(large[y : y + HEIGHT, x : x + WIDTH]))
    return pictures


def frames() -> list[npt.NDArray[np.uint8]]:
    """The shipped photographs, BGR."""
    frames = [cv2.imread(str(path), cv2.IMREAD_COLOR) for path in sorted(PICTURES.glob("*.png"))]
    return [frame for frame in frames if frame is not None]  # type: ignore[misc]


def _encoded(frame: npt.NDArray[Any]) -> bytes:
    done, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        raise ValueError("a picture could not be encoded")
    return data.tobytes()
