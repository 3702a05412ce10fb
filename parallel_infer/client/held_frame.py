"""The frame that `with client.frame(...)` hands out, and how it is sent without a copy."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
import numpy.typing as npt

from parallel_infer.client.connection import Connection
from parallel_infer.client.greeting import learn_terms
from parallel_infer.client.lent import Slot
from parallel_infer.client.payload import payload_of
from parallel_infer.client.pending import Pending
from parallel_infer.client.reading import check_size
from parallel_infer.client.requests import Job
from parallel_infer.client.terms import Terms
from parallel_infer.errors import BadInput, ServerUnavailable, Unanswered
from parallel_infer.limits import ALWAYS_READ

CHANNELS = 3
UNREACHED = (ServerUnavailable, Unanswered)  # errors after which a frame is an ordinary array


class HeldFrame:
    """An array to fill, uint8 [height, width, 3], in a lent slot where there is one."""

    def __init__(self, slot: Slot | None, height: int, width: int) -> None:
        self._slot = slot
        flat = np.empty(height * width * CHANNELS, np.uint8) if slot is None else slot.array
        self.array: npt.NDArray[np.uint8] = flat.reshape(height, width, CHANNELS)

    @classmethod
    def claim(cls, connection: Connection, height: int, width: int) -> HeldFrame | None:
        """A frame in a slot that is there already; None where the server must be asked first or lends nothing."""
        slot = None if connection.lent is None else connection.lent.claim(height * width * CHANNELS)
        return None if slot is None else cls(slot, height, width)

    def pending(self, job: Job, connection: Connection) -> Pending:
        """A request for the frame as it is now."""
        payload = payload_of(self.array)
        request = job.request(connection.number(), payload)
        pending = Pending(request, job.timeout, payload.data)
        if self._slot is not None:
            pending.lend(self._slot.claim())
        return pending

    def release(self) -> None:
        """The frame is not filled any more; a late reply may still keep its slot."""
        if self._slot is not None:
            self._slot.release()


def check_frame(height: Any, width: Any, terms: Terms) -> None:
    """Raises BadInput for a frame without pixels, and for one that the server would not take."""
    for name, side in (("height", height), ("width", width)):
        if isinstance(side, bool) or not isinstance(side, numbers.Integral):
            raise BadInput(f"{name}={side!r:.50} is no whole number of pixels")
    if height < 1 or width < 1:
        raise BadInput(f"a frame of {height} x {width} pixels has no pixels")
    check_size(int(height) * int(width) * CHANNELS, terms.most)


def needs_terms(connection: Connection, height: int, width: int) -> bool:
    """Whether to ask what the server takes before a frame is handed out."""
    return not connection.terms.known and (connection.lent is not None or height * width * CHANNELS > ALWAYS_READ)


def hold(connection: Connection, height: int, width: int, timeout: float) -> HeldFrame:
    """A frame to fill; waits up to `timeout` seconds for the first ring of this connection.

    Raises BadInput for one that the server would not take; where no server is reached, nothing is known of it yet.
    """
    check_frame(height, width, connection.terms)
    if needs_terms(connection, height, width):
        if isinstance(learn_terms(connection, timeout), UNREACHED):
            return HeldFrame(None, height, width)
        check_frame(height, width, connection.terms)
    held = HeldFrame.claim(connection, height, width)
    if held is None and connection.lent is not None and connection.lent.asking is not None:
        asking = connection.lent.asking
        connection.limit(asking, timeout)
        connection.wait(asking)
        held = HeldFrame.claim(connection, height, width)
    return held or HeldFrame(None, height, width)
