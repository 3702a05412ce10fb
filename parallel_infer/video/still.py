"""Which frames show nothing new: those that do not differ from a frame that was answered.

Frames are compared by the mean colour of blocks of 8 x 8 pixels. A mean of 64 pixels hardly moves with the noise of a
sensor or of compression, and does move where anything of that size comes, goes or changes. What is compared with is a
frame that was inferred, never the one before: what changes slowly adds up until it counts.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from parallel_infer.answers.answer import Answer

_BLOCK = 8  # pixels

Blocks = npt.NDArray[np.uint8]


class _Answered(NamedTuple):
    number: int
    captured: float
    blocks: Blocks
    answer: Answer


class StillFrames:
    """The last frame of a source that was inferred, and whether another one differs from it.

    `threshold`: levels of 0 to 255 by which the mean of a block must change, in one colour at least. `longest`: seconds
    after the capture of the inferred frame from which every frame counts as different.
    """

    def __init__(self, threshold: float, longest: float) -> None:
        self._threshold = threshold
        self._longest = longest
        self._last: _Answered | None = None

    def answer_for(self, blocks: Blocks, captured: float) -> Answer | None:
        """The answer that a frame shares, marked as such; None where it has to be inferred."""
        last = self._last
        if last is None or last.blocks.shape != blocks.shape or not 0 <= captured - last.captured < self._longest:
            return None
        return last.answer.for_still() if cv2.norm(last.blocks, blocks, cv2.NORM_INF) < self._threshold else None

    def answered(self, number: int, blocks: Blocks, captured: float, answer: Answer) -> None:
        """Frame `number` was inferred; later frames are compared with the one of the highest number."""
        if self._last is None or number > self._last.number:
            self._last = _Answered(number, captured, blocks, answer)


def blocks_of(pixels: npt.NDArray[np.uint8]) -> Blocks:
    """The mean colours of a frame's blocks: uint8 [ceil(h / 8), ceil(w / 8), 3] of uint8 [h, w, 3]."""
    height, width = pixels.shape[:2]
    size = math.ceil(width / _BLOCK), math.ceil(height / _BLOCK)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
