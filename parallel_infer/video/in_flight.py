"""The frames of one source on their way: sent, dropped, answered, and handed on in order. No process, no pipe."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from parallel_infer.answers.answer import Answer
from parallel_infer.client.connection import Connection
from parallel_infer.client.in_flight_queue import Entry, InFlightQueue, Pause
from parallel_infer.client.lent import Slot
from parallel_infer.client.payload import Payload
from parallel_infer.client.pending import Outcome, Pending
from parallel_infer.client.requests import Job, as_answer, encode_options
from parallel_infer.errors import DeadlineExceeded, Dropped, InferError, ResourceUnavailable
from parallel_infer.protocol import Infer, Tensor
from parallel_infer.tracking import following_for
from parallel_infer.tracking.counting import Counts
from parallel_infer.tracking.settings import CannotFollow, Moment
from parallel_infer.video.counts import Tally
from parallel_infer.video.memory import Memory, Region
from parallel_infer.video.pacing import USUAL_FPS
from parallel_infer.video.settings import Drop, StreamSettings
from parallel_infer.video.sources import Source
from parallel_infer.video.still import StillFrames, blocks_of

if TYPE_CHECKING:
    from parallel_infer.tracking.following import Following


class InFlightFrame(Entry):
    """One frame, from its capture to its outcome being handed on."""

    def __init__(self, frame: int, turn: int, captured: float, position: float | None, capture: int = 0) -> None:
        super().__init__()
        self.frame = frame
        self.turn = turn
        self.captured = captured  # time.monotonic()
        self.position = position  # seconds from the start of a recording
        self.capture = capture  # number of the capture, which goes up where the source was lost
        self.counts: Counts | None = None  # of the source, up to this frame
        self.slot: Slot | None = None
        self.region: Region | None = None
        self.pixels: npt.NDArray[np.uint8] | None = None
        self.blocks: npt.NDArray[np.uint8] | None = None  # what it is compared by, where still frames are skipped
        self.first_sent: float | None = None
        self.pending: Pending | None = None  # while it is sent and has no reply

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


class FramesInFlight:
    """All frames of one source that have no end yet."""

    def __init__(
        self, source: Source, model: str, settings: StreamSettings, connection: Connection, memory: Memory
    ) -> None:
        self.tally = Tally()
        self._settings = settings
        self._connection = connection
        self._memory = memory
        self._drop = settings.drop_of(source)
        self._still = None if settings.skip_still is None else StillFrames(settings.skip_still, settings.still_for)
        self._following = _following(settings)
        lower = None if self._following is None else self._following.confidence
        self._live = source.live
        self._job = Job(
            model,
            encode_options(settings.options if lower is None else settings.options | {"confidence": lower}),
            settings.timeout,
            source=source.name,
            drop="latest" if self._drop is Drop.LATEST else "none",
        )
        self._most_waiting = settings.waiting(source)
        self._queue: InFlightQueue[InFlightFrame] = InFlightQueue(settings.in_flight(source))
        self._pause = Pause()

    @property
    def none_left(self) -> bool:
        return self._queue.empty

    @property
    def counts(self) -> Counts | None:
        """Of lines and zones, up to the last frame that was handed on."""
        return None if self._following is None else self._following.counts

    def add(self, frame: InFlightFrame) -> None:
        """A frame was captured. One with an outcome already only keeps its place in the order."""
        self._queue.add(frame)
        if frame.outcome is None and not self._answer_if_still(frame):
            self._queue.wait(frame)

    def send(self, now: float) -> None:
        """Send what there is room for, and drop what is too much."""
        if now < self._pause.end:
            return
        while (frame := self._next()) is not None:
            self._send(frame, now)
        if self._most_waiting is not None:
            self._keep_newest(self._most_waiting)

    def done(self) -> Iterator[InFlightFrame]:
        """Frames with an answer or an error, in order; pixels are there until the next one is asked for."""
        while (frame := self._queue.pop_done()) is not None:
            self._follow(frame)
            if self._count(frame):
                yield frame
            frame.release()

    def abandon(self) -> None:
        """Give everything up that has no outcome."""
        for frame in self._queue:
            if frame.pending is not None:
                self._connection.abandon(frame.pending)
            frame.release()
        self._queue.clear()

    def _next(self) -> InFlightFrame | None:
        """The policy "latest" sends the newest frame that waits; the others follow the order."""
        if self._drop is Drop.LATEST and self._queue.has_room:
            self._keep_newest(1)
        return self._queue.next_waiting()

    def _keep_newest(self, count: int) -> None:
        for frame in self._queue.keep_newest(count):
            self._end(frame, Dropped("a newer frame took its place"))

    def _send(self, frame: InFlightFrame, now: float) -> None:
        timeout = self._settings.timeout
        if self._settings.max_age is not None:
            timeout = min(timeout, self._settings.max_age - (now - frame.captured))
            if timeout <= 0:
                self._queue.end()
                self._end(frame, DeadlineExceeded("older than max_age before it was sent"))
                return
        if self._answer_if_still(frame):  # the one that it resembles was answered while it waited
            self._queue.end()
            return
        assert frame.slot is not None
        assert frame.pixels is not None
        payload = Payload("frame", (Tensor("", "uint8", frame.pixels.shape),), frame.slot.data)
        job = self._job._replace(timeout=timeout)
        request = job.request(self._connection.number(), payload)
        pending = Pending(request, timeout, payload.data, lambda done, outcome: self._settle(frame, done, outcome))
        if frame.region is not None and frame.region.lent:
            pending.lend(frame.slot.claim())
        frame.first_sent = frame.first_sent or now
        frame.pending = pending
        self._connection.post(pending)

    def _answer_if_still(self, frame: InFlightFrame) -> bool:
        """Give a frame the answer of the last one that was inferred, where it does not differ from that."""
        if self._still is None or frame.pixels is None:
            return False
        if frame.blocks is None:
            frame.blocks = blocks_of(frame.pixels)
        answer = self._still.answer_for(frame.blocks, frame.captured)
        if answer is None:
            return False
        frame.outcome = answer
        return True

    def _settle(self, frame: InFlightFrame, pending: Pending, outcome: Outcome) -> None:
        self._queue.end()
        frame.pending = None
        self._note_lost(frame, pending)
        if isinstance(outcome, ResourceUnavailable):
            self._refused(frame, outcome)
            return
        self._pause.reset()
        self._end(frame, as_answer(outcome))
        if self._still is not None and frame.blocks is not None and isinstance(frame.outcome, Answer):
            self._still.answered(frame.number, frame.blocks, frame.captured, frame.outcome)

    def _note_lost(self, frame: InFlightFrame, pending: Pending) -> None:
        """A request that was lent a slot and does not name it any more was sent as bytes: the ring is gone."""
        request, region = pending.request, frame.region
        if region is not None and region.lent and isinstance(request, Infer) and request.slot is None:
            self._memory.lost(region)

    def _refused(self, frame: InFlightFrame, refusal: ResourceUnavailable) -> None:
        """The server takes no more for now: a frame that may be dropped is, any other is sent again."""
        now = time.monotonic()
        self._pause.begin(now, refusal.retry_after)
        if self._drop is not Drop.NONE:
            self._end(frame, Dropped("the server takes no more frames for now"))
        elif frame.first_sent is not None and now - frame.first_sent > self._settings.timeout:
            self._end(frame, refusal)
        else:
            self._queue.wait(frame)

    def _follow(self, frame: InFlightFrame) -> None:
        if self._following is None or not isinstance(frame.outcome, Answer):
            return
        try:
            frame.outcome = self._following.follow(frame.outcome, Moment(self._seconds(frame), frame.capture))
            frame.counts = self._following.counts
        except CannotFollow as error:
            self._end(frame, error)

    def _seconds(self, frame: InFlightFrame) -> float:
        """The time of a frame on the clock of its source: a recording is read faster or slower than it plays."""
        if self._live:
            return frame.captured
        return frame.frame / USUAL_FPS if frame.position is None else frame.position

    def _end(self, frame: InFlightFrame, outcome: Answer | InferError) -> None:
        frame.outcome = outcome
        if not isinstance(outcome, Answer):
            frame.release()

    def _count(self, frame: InFlightFrame) -> bool:
        """Count an outcome; whether it is one to hand on."""
        if isinstance(frame.outcome, Answer):
            self.tally.answered += 1
            self.tally.still += frame.outcome.still
            self.tally.ages.append(time.monotonic() - frame.captured)
        elif isinstance(frame.outcome, Dropped):
            self.tally.dropped += 1
            return False
        elif isinstance(frame.outcome, DeadlineExceeded) and self._settings.max_age is not None:
            self.tally.expired += 1
            return False
        else:
            self.tally.failed += 1
        return True


def _following(settings: StreamSettings) -> Following | None:
    if settings.track is None:
        return None
    confidence = settings.options.get("confidence")
    return following_for(settings.track, confidence if isinstance(confidence, int | float) else None)
