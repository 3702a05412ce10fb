"""The number of pixels that OpenCV itself stops at, which it reads from the environment when it is imported."""

from __future__ import annotations

import os
import re

VARIABLE = "OPENCV_IO_MAX_IMAGE_PIXELS"
USUAL = 2**28
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20}


def set_pixel_limit() -> int:
    """Make the variable one that OpenCV can read, before OpenCV is imported; returns its value, at least 2**28.

    A number counts, as do KB and MB behind it; OpenCV would end the process with anything else. A smaller one was meant
    for other programs: ours have limits of their own.
    """
    given = re.fullmatch(r"(\d{1,15})\s*(?:([KM])b)?", os.environ.get(VARIABLE, "").strip(), re.IGNORECASE)
    limit = int(given[1]) * _UNITS[(given[2] or "").upper()] if given else 0
    limit = max(limit, USUAL)
    os.environ[VARIABLE] = str(limit)
    return limit
