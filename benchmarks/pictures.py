"""Reading a picture, for benchmarks that send what they make of it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]


def read_picture(path: Path) -> Picture:
    """uint8 [h, w, 3], BGR. Raises FileNotFoundError for what is not there or is no picture."""
    found = cv2.imread(str(path))
    if found is None:
        raise FileNotFoundError(f"{path} is no picture that can be read")
    return np.asarray(found, np.uint8)
