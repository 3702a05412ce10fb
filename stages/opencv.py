"""OpenCV as the stages use it: one thread per process, and a hard stop for bombs behind our own limits.

Everything here that decodes or resizes imports `cv2` from this module, because OpenCV reads its limit on pixels once,
while it is imported, and starts its own threads unless told otherwise.
"""

from __future__ import annotations

from parallel_infer.pictures.opencv_limit import set_pixel_limit

_LIMIT = set_pixel_limit()

import cv2  # noqa: E402  # after the limit, because it is read at import

__all__ = ["MAX_PIXELS", "cv2"]

# The processes are the parallelism; threads of OpenCV's own would fight over the same cores.
cv2.setNumThreads(1)
# What is wrong with a picture goes to whoever sent it; OpenCV need not log it as well.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

MAX_PIXELS = _LIMIT
"""Pixels OpenCV itself refuses to go beyond, whatever a picture's header says."""
