"""The frames of one source on their way: sent, dropped, answered, and handed on in order. No process, no pipe."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from parallel_infer.answers.answer import Answer
from parallel_infer.client.connection import Connection
from parallel_infer.client.lent import Slot
from parallel_infer.client.payload import Payload
from parallel_infer.client.pending import Outcome, Pending
from parallel_infer.client.requests import Job, encode_options
from parallel_infer.errors import DeadlineExceeded, Dropped, InferError, ResourceUnavailable
from parallel_infer.protocol import Infer, Tensor
from parallel_infer.video.counts import Tally
from parallel_infer.video.memory import Memory, Region
from parallel_infer.video.settings import Drop, StreamSettings
from parallel_infer.video.sources import Source

_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.1  # seconds before a refused frame is sent again


class InFlightFrame:
    """One frame, from its capture to its outcome being handed on."""

    def __init__(self, frame: int, turn: int, captured: float, position: float | None) -> None:
        self.frame = frame
        self.turn = turn
        self.captured = captured  # time.monotonic()
        self.position = position  # seconds from the start of a recording
        self.slot: Slot | None = None
        self.region: Region | None = None
        self.pixels: npt.NDArray[np.uint8] | None = None
        self.first_sent: float | None = None
        self.outcome: Answer | InferError | None = None

    def hold(self, slot: Slot, region: Region, height: int, width: int) -> None:
        """Its pixels lie in `slot`."""
        slot.array = slot.array[: height * width * 3]
        self.slot, self.region = slot, region
        self.pixels = slot.array.reshape(height, width, 3)

    def release(self) -> None:
        """Nobody looks at its pixels any more."""
        self.pixels = None
        if self.slot is not None:
            self.slot.release()
            self.slot = None


class Shots:
    """All frames of one source that have no end yet."""

    def __init__(
        self, source: Source, model: str, settings: StreamSettings, connection: Connection, memory: Memory
    ) -> None:
        self.tally = Tally()
        self._settings = settings
        self._connection = connection
        self._memory = memory
        self._drop = settings.drop_of(source)
        self._job = Job(
            model,
            encode_options(settings.options),
            settings.timeout,
            source=source.name,
            drop="latest" if self._drop is Drop.LATEST else "none",
        )
        self._room = settings.in_flight(source)
        self._most_waiting = settings.waiting(source)
        self._order: deque[InFlightFrame] = deque()  # all that are not handed on, in the order of the source
        self._waiting: deque[InFlightFrame] = deque()  # those of them that are not sent
        self._sent: dict[int, Pending] = {}
        self._pause = _FIRST_PAUSE
        self._resume = 0.0

    @property
    def none_left(self) -> bool:
        return not self._order

    def add(self, shot: InFlightFrame) -> None:
        """A frame was captured. One with an outcome already only keeps its place in the order."""
        self._order.append(shot)
        if shot.outcome is None:
            self._waiting.append(shot)

    def send(self, now: float) -> None:
        """Send what there is room for, and drop what is too much."""
        if now < self._resume:
            return
        while self._room and self._waiting:
            self._send(self._next(), now)
        while self._most_waiting is not None and len(self._waiting) > self._most_waiting:
            self._end(self._waiting.popleft(), Dropped("a newer frame took its place"))

    def done(self) -> Iterator[InFlightFrame]:
        """Frames with an answer or an error, in order; pixels are there until the next one is asked for."""
        while self._order and self._order[0].outcome is not None:
            shot = self._order.popleft()
            if self._count(shot):
                yield shot
            shot.release()

    def abandon(self) -> None:
        """Give everything up that has no outcome."""
        for pending in list(self._sent.values()):
            self._connection.abandon(pending)
        self._sent.clear()
        self._waiting.clear()
        for shot in self._order:
            shot.release()
        self._order.clear()

    def _next(self) -> InFlightFrame:
        """The policy "latest" sends the newest frame that waits; the others follow the order."""
        if self._drop is Drop.LATEST:
            while len(self._waiting) > 1:
                self._end(self._waiting.popleft(), Dropped("a newer frame took its place"))
        return self._waiting.popleft()

    def _send(self, shot: InFlightFrame, now: float) -> None:
        timeout = self._settings.timeout
        if self._settings.max_age is not None:
            timeout = min(timeout, self._settings.max_age - (now - shot.captured))
            if timeout <= 0:
                self._end(shot, DeadlineExceeded("older than max_age before it was sent"))
                return
        assert shot.slot is not None
        assert shot.pixels is not None
        payload = Payload("frame", (Tensor("", "uint8", shot.pixels.shape),), shot.slot.data)
        job = self._job._replace(timeout=timeout)
        request = job.request(self._connection.number(), payload)
        pending = Pending(request, timeout, payload.data, lambda done, outcome: self._settle(shot, done, outcome))
        if shot.region is not None and shot.region.lent:
            pending.lend(shot.slot.claim())
        shot.first_sent = shot.first_sent or now
        self._room -= 1
        self._sent[request.id] = pending
        self._connection.post(pending)

    def _settle(self, shot: InFlightFrame, pending: Pending, outcome: Outcome) -> None:
        self._room += 1
        self._sent.pop(pending.request.id, None)
        self._note_lost(shot, pending)
        if isinstance(outcome, ResourceUnavailable):
            self._refused(shot, outcome)
            return
        self._pause = _FIRST_PAUSE
        if isinstance(outcome, (Answer, InferError)):
            self._end(shot, outcome)
        else:
            self._end(shot, InferError("The server sent something else than an answer"))

    def _note_lost(self, shot: InFlightFrame, pending: Pending) -> None:
        """A request that was lent a slot and does not name it any more was sent as bytes: the ring is gone."""
        request, region = pending.request, shot.region
        if region is not None and region.lent and isinstance(request, Infer) and request.slot is None:
            self._memory.lost(region)

    def _refused(self, shot: InFlightFrame, refusal: ResourceUnavailable) -> None:
        """The server takes no more for now: a frame that may be dropped is, any other is sent again."""
        now = time.monotonic()
        if now >= self._resume:
            self._resume = now + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        if self._drop is not Drop.NONE:
            self._end(shot, Dropped("the server takes no more frames for now"))
        elif shot.first_sent is not None and now - shot.first_sent > self._settings.timeout:
            self._end(shot, refusal)
        else:
            self._waiting.appendleft(shot)

    def _end(self, shot: InFlightFrame, outcome: Answer | InferError) -> None:
        shot.outcome = outcome
        if not isinstance(outcome, Answer):
            shot.release()

    def _count(self, shot: InFlightFrame) -> bool:
        """Count an outcome; whether it is one to hand on."""
        if isinstance(shot.outcome, Answer):
            self.tally.answered += 1
            self.tally.ages.append(time.monotonic() - shot.captured)
        elif isinstance(shot.outcome, Dropped):
            self.tally.dropped += 1
            return False
        elif isinstance(shot.outcome, DeadlineExceeded) and self._settings.max_age is not None:
            self.tally.expired += 1
            return False
        else:
            self.tally.failed += 1
        return True
