"""A frame, and memory for frames that is used again from picture to picture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from parallel_infer.errors import BadInput

Frame = npt.NDArray[np.uint8]
"""Decoded pixels: uint8 [height, width, 3], BGR. A frame that a client sends raw may also be gray, [height, width]."""

_GRAIN = 1 << 20
_KEPT = 64 << 20


def checked(frame: npt.NDArray[np.generic]) -> Frame:
    """`frame` itself, or its [h, w] view where it is [h, w, 1]. Raises BadInput where it is not a frame."""
    colors = frame.shape[2:]
    if frame.dtype != np.uint8 or frame.ndim not in (2, 3) or colors not in ((), (1,), (3,)) or frame.size == 0:
        raise BadInput(
            f"a frame is uint8 [height, width, 3] in BGR order, or [height, width] for gray; "
            f"got {frame.dtype} {list(frame.shape)}"
        )
    return frame[..., 0] if colors == (1,) else frame  # type: ignore[return-value]  # the dtype was checked above


class Scratch:
    """One growing block. Up to 64 MiB it stays, so that the usual picture costs no page faults; beyond, memory goes
    with the frame that needed it, so that one huge picture does not weigh on the process for ever.
    """

    def __init__(self) -> None:
        self._block: Frame = np.empty(0, np.uint8)

    def frame(self, height: int, width: int) -> Frame:
        """A uint8 [height, width, 3] array of undefined content; the frame before it is overwritten."""
        size = height * width * 3
        if size > _KEPT:
            return np.empty((height, width, 3), np.uint8)
        if size > self._block.size:
            self._block = np.empty(-(-size // _GRAIN) * _GRAIN, np.uint8)
        return self._block[:size].reshape(height, width, 3)
