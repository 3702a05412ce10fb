"""The frame that `with client.frame(...)` hands out, and how it is sent without a copy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from parallel_infer.client.connection import Connection
from parallel_infer.client.lent import Slot
from parallel_infer.client.payload import payload_of
from parallel_infer.client.pending import Pending
from parallel_infer.client.requests import Job
from parallel_infer.errors import ServerUnavailable
from parallel_infer.protocol import Hello


class HeldFrame:
    """An array to fill, uint8 [height, width, 3], in a lent slot where there is one."""

    def __init__(self, slot: Slot | None, height: int, width: int) -> None:
        self._slot = slot
        flat = np.empty(height * width * 3, np.uint8) if slot is None else slot.array
        self.array: npt.NDArray[np.uint8] = flat.reshape(height, width, 3)

    @classmethod
    def claim(cls, connection: Connection, height: int, width: int) -> HeldFrame | None:
        """A frame in a slot that is there already; None where the server must be asked first or lends nothing."""
        if height < 1 or width < 1:
            raise ValueError(f"a frame of {height} x {width} pixels has no pixels")
        slot = None if connection.lent is None else connection.lent.claim(height * width * 3)
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


def hold(connection: Connection, height: int, width: int, timeout: float) -> HeldFrame:
    """A frame to fill; waits up to `timeout` seconds for the first ring of this connection."""
    if connection.lent is not None and not connection.terms.known:
        greeting = connection.ask(Pending(Hello(id=connection.number()), timeout))
        if isinstance(greeting, ServerUnavailable):
            return HeldFrame(None, height, width)
    held = HeldFrame.claim(connection, height, width)
    if held is None and connection.lent is not None and connection.lent.asking is not None:
        asking = connection.lent.asking
        connection.limit(asking, timeout)
        connection.wait(asking)
        held = HeldFrame.claim(connection, height, width)
    return held or HeldFrame(None, height, width)
