"""One source from its capture process to its results: started, watched, started again, and its state told."""

from __future__ import annotations

import copy
import math
import time
from collections import deque
from collections.abc import Iterator

from parallel_infer.client.lent import Slot
from parallel_infer.errors import BadInput, ServerUnavailable, Unanswered, Unauthorized, UnknownModel
from parallel_infer.redaction import without_secrets
from parallel_infer.tracking.counting import Counts
from parallel_infer.tracking.settings import CannotFollow
from parallel_infer.video.capture_process import CaptureProcess
from parallel_infer.video.counts import Tally
from parallel_infer.video.events import Change, Result
from parallel_infer.video.in_flight import FramesInFlight, InFlightFrame
from parallel_infer.video.memory import Memory, Region
from parallel_infer.video.pipe import Captured, DecodeError, Ended, Needs, Opened, Order, Place, Word
from parallel_infer.video.settings import Drop, StreamSettings
from parallel_infer.video.sources import Source, SourceState

_START = 10.0  # seconds a capture process has to come up, on top of what opening may take
_SLOW = 3.0  # intervals of a slow source that are no silence yet
_DYING = 0.2  # seconds to wait for the end of a capture process before going on without
_LAST_PATIENCE = 5.0  # the same when everything is closed
_FATAL = (UnknownModel, Unauthorized, CannotFollow)  # every other frame would get the same


class Feed:
    """One source. Not started by its constructor; `step` does what is due, `events` tells what happened."""

    def __init__(self, source: Source, settings: StreamSettings, memory: Memory, frames: FramesInFlight) -> None:
        self.source = source
        self.state = SourceState.CONNECTING
        self.message = ""  # about the state
        self.fps = 0.0  # of the source; 0: unknown
        self.frames = 0  # of the whole source; 0: unknown or without end
        self.process: CaptureProcess | None = None
        self._settings = settings
        self._memory = memory
        self._frames = frames
        self._changes: deque[Change] = deque()
        self._given: dict[int, tuple[Slot, Region]] = {}  # places the capture process may write to
        self._dying: list[tuple[CaptureProcess, list[Slot]]] = []  # killed, and what they may still write to
        self._numbers = 0  # of places
        self._asked = False  # whether this capture process wants places
        self._deadline = math.inf  # of the next word from the capture process
        self._turns = 0  # of this capture process so far
        self._base = self._turn_base = 0  # frames and turns before this capture process
        self._last_frame = -1
        self._failures = 0  # captures in a row without a frame
        self._retry_at = math.inf
        self._final_state: tuple[SourceState, str] | None = None  # to say once the last frames are answered

    @property
    def tally(self) -> Tally:
        return self._frames.tally

    @property
    def counts(self) -> Counts | None:
        """Of lines and zones so far; None where none are asked for."""
        return self._frames.counts

    @property
    def timer(self) -> float:
        """When `step` has something to do even if nothing happens."""
        return min(self._retry_at, self._deadline)

    def start(self) -> None:
        """Say that it begins, and begin."""
        self._change(SourceState.CONNECTING, "")
        self._capture(time.monotonic())

    def step(self, now: float) -> None:
        """Hear the capture process, watch it, hand it places, send frames."""
        self._reap(0.0)
        if self.state.final:
            return
        if now >= self._retry_at:
            self._capture(now)
        self._poll(now)
        if self.process is not None and now >= self._deadline:
            self._lose("nothing came any more; the capture was stopped")
        self._memory.upkeep(now)
        if self._memory.error:
            self._finish(SourceState.FAILED, self._memory.error)
        self._hand_out(now)
        self._frames.send(now)

    def events(self) -> Iterator[Result | Change]:
        """What happened since, in its order."""
        while self._changes:
            yield self._changes.popleft()
        for frame in self._frames.done():
            yield self._result(frame)
            self._judge(frame)
        if self._final_state is not None and self._frames.none_left and not self.state.final:
            state, message = self._final_state
            self._change(state, message)
            yield self._changes.popleft()

    def stop(self, message: str) -> Iterator[Change]:
        """End it now, whatever is on its way."""
        if not self.state.final:
            self.close()
            self._change(SourceState.ENDED, message)
        while self._changes:
            yield self._changes.popleft()

    def close(self) -> None:
        """Kill the capture process, forget its frames and give back its memory."""
        self._stop_capture()
        self._reap(_LAST_PATIENCE)
        self._frames.abandon()
        self._memory.close()

    def _capture(self, now: float) -> None:
        self._retry_at = math.inf
        settings, source = self._settings, self.source
        self.process = CaptureProcess(
            Order(
                source.kind.value,
                source.address.encode("utf-8", "surrogateescape"),
                settings.drop_of(source) is Drop.NONE,
                settings.fps,
                settings.opening,
                settings.silence,
            )
        )
        self._asked = False
        self._base, self._turn_base = self._last_frame + 1, self._turn_base + self._turns
        self._turns = 0
        self._deadline = now + settings.opening + _START

    def _poll(self, now: float) -> None:
        words = self.process.words() if self.process is not None else []
        if words is None:
            self._lose("the capture process died")
            return
        for word in words:
            self._deadline = now + self._silence
            self._handle(word, now)

    def _handle(self, word: Word, now: float) -> None:
        match word:
            case Opened():
                self.fps, self.frames = word.fps, word.frames
                self._deadline = now + max(self._silence, self._settings.opening)  # the first frame may take longer
            case Needs():
                self._take_back()
                self._asked = True
                self._memory.need(word.size)
            case Captured():
                self._captured(word)
            case DecodeError():
                frame = self._new_frame(word)
                frame.outcome = BadInput(self._told(word.message))
                self._frames.add(frame)
            case Ended():
                self._count_missing(word.turns)
                self._last_frame = self._base + word.frames - 1
                self._ended(word)

    def _captured(self, word: Captured) -> None:
        given = self._given.pop(word.place, None)
        if given is None:
            return
        if self.state is not SourceState.LIVE:
            self._failures = 0
            self._change(SourceState.LIVE, f"{word.width}x{word.height}" + (f", {self.fps:g} fps" if self.fps else ""))
        frame = self._new_frame(word)
        frame.hold(*given, word.height, word.width)
        self._frames.add(frame)

    def _new_frame(self, word: Captured | DecodeError) -> InFlightFrame:
        self._count_missing(word.turn)
        self._turns = word.turn + 1
        self._last_frame = self._base + word.frame
        return InFlightFrame(
            self._last_frame, self._turn_base + word.turn, word.time, word.position, self.tally.restarts
        )

    def _count_missing(self, turn: int) -> None:
        """Frames that the capture process had no place for."""
        self.tally.dropped += max(0, turn - self._turns)
        self._turns = max(turn, self._turns)

    def _ended(self, word: Ended) -> None:
        if self.source.recurs and not (word.well and self.frames):
            self._lose(word.message)
            return
        self._stop_capture()
        self._final_state = (SourceState.ENDED if word.well else SourceState.FAILED), self._told(word.message)

    def _told(self, message: str) -> str:
        """What the capture process said, which FFmpeg may have put a piece of a password in."""
        return without_secrets(message, self.source.address)

    def _lose(self, message: str) -> None:
        """The capture came to an end that is none of the source: try again, or say that it has failed."""
        self._stop_capture()
        message = self._told(message)
        attempts = self._settings.attempts
        if not self.source.recurs or (attempts is not None and self._failures >= attempts):
            self._final_state = SourceState.FAILED, message
            return
        pause = min(self._settings.first_pause * 2**self._failures, self._settings.longest_pause)
        self._failures += 1
        self.tally.restarts += 1
        self._retry_at = time.monotonic() + pause
        self._change(SourceState.RECONNECTING, f"{message}; next attempt in {pause:g} s")

    def _hand_out(self, now: float) -> None:
        """Give every free slot to the capture process. Without one it cannot go on, so its silence counts from here."""
        if self.process is None or not self._asked:
            return
        before = len(self._given)
        for slot, region in self._memory.claims():
            self._numbers += 1
            self._given[self._numbers] = slot, region
            grant = region.grant
            self.process.give(Place(self._numbers, grant.segment, grant.slots, grant.size, slot.index))
        if not self._given:
            self._deadline = math.inf
        elif not before:
            self._deadline = now + self._silence

    @property
    def _silence(self) -> float:
        rates = [rate for rate in (self.fps, self._settings.fps) if rate]
        return max([self._settings.silence, *(_SLOW / rate for rate in rates)])

    def _stop_capture(self) -> None:
        """Kill the capture process. Its places are free when it is dead; one that cannot die keeps them."""
        self._deadline = math.inf
        if self.process is None:
            return
        self.process.kill()
        self._dying.append((self.process, [slot for slot, _ in self._given.values()]))
        self.process = None
        self._given.clear()
        self._reap(_DYING)
        if self._dying:
            self._memory.replace()

    def _reap(self, patience: float) -> None:
        """Take back the places of processes that have died meanwhile."""
        for process, slots in [dying for dying in self._dying if dying[0].ended(patience)]:
            self._dying.remove((process, slots))
            for slot in slots:
                slot.release()

    def _take_back(self) -> None:
        """The capture process said that it writes to these places no more."""
        for slot, _ in self._given.values():
            slot.release()
        self._given.clear()

    def _result(self, frame: InFlightFrame) -> Result:
        assert frame.outcome is not None
        age = time.monotonic() - frame.captured
        return Result(
            source=self.source.name,
            frame=frame.frame,
            turn=frame.turn,
            captured=time.time() - age,
            age=age,
            answer=frame.outcome,
            tally=self.tally,
            pixels=frame.pixels,
            position=frame.position,
            counts=frame.counts,
        )

    def _judge(self, frame: InFlightFrame) -> None:
        """An error that every further frame would get ends the source."""
        hopeless = _FATAL if self.source.live else (*_FATAL, ServerUnavailable, Unanswered)
        if isinstance(frame.outcome, hopeless) and self._final_state is None:
            self._finish(SourceState.FAILED, f"{frame.outcome.code}: {frame.outcome}")

    def _finish(self, state: SourceState, message: str) -> None:
        self._stop_capture()
        self._retry_at = math.inf
        self._memory.error = ""
        self._final_state = self._final_state or (state, message)

    def _change(self, state: SourceState, message: str) -> None:
        self.state, self.message = state, message
        self._changes.append(Change(self.source.name, state, message, copy.deepcopy(self.tally), self.counts))
