"""The capture process: opens one source and fills places in shared memory with its frames, until told to end.

OpenCV may block for as long as it likes here; the parent kills this process when nothing comes. Credentials of the
source come over the pipe, never as an argument that other users could see.
"""

from __future__ import annotations

import os
import time
from collections import deque
from multiprocessing.connection import Connection

import numpy as np

from parallel_infer.redaction import redacted
from parallel_infer.shm.ring import Ring, byte_ring
from parallel_infer.video.pacing import ByNumber, ByTime, Clock, Thinning
from parallel_infer.video.pipe import Captured, DecodeError, Ended, Needs, Opened, Order, Pipe, Place, Told
from parallel_infer.video.readers import CannotOpen, Frame, Reader, Unreadable, open_reader
from parallel_infer.video.sources import SourceKind

_RECORDED = (SourceKind.FILE.value, SourceKind.REALTIME.value, SourceKind.STDIN.value)


class Places:
    """The places given by the parent, in their order."""

    def __init__(self, pipe: Pipe[Told]) -> None:
        self._pipe = pipe
        self._free: deque[Place] = deque()
        self._rings: dict[str, Ring] = {}
        self._least = 0  # bytes; a smaller place was given before its parent knew that it is of no use

    def pause(self, seconds: float | None) -> None:
        """Take what the parent gives; return after the first one, or after `seconds`."""
        if self._pipe.ready(seconds):
            word = self._pipe.receive()
            if isinstance(word, Place) and word.size >= self._least:
                self._free.append(word)

    def take_all(self) -> None:
        """Take everything the parent has given, without waiting."""
        while self._pipe.ready():
            self.pause(0.0)

    def claim(self, waits: bool) -> Place | None:
        """The next free place; None where there is none, unless `waits`."""
        self.take_all()
        while waits and not self._free:
            self.pause(None)
        return self._free.popleft() if self._free else None

    def put_back(self, place: Place) -> None:
        """Have a place first in line again."""
        self._free.appendleft(place)

    def void(self, least: int) -> None:
        """Forget all places and rings; those to come have at least so many bytes."""
        self.take_all()
        self._least = least
        self._free.clear()
        self._rings.clear()

    def memory(self, place: Place) -> Frame:
        """The bytes of a place, uint8 [size]."""
        ring = self._rings.get(place.segment)
        if ring is None:
            self._rings.clear()  # the parent has changed to another ring
            ring = self._rings[place.segment] = Ring.attach(byte_ring(place.segment, place.slots, place.size))
        memory: Frame = ring.arrays["bytes"][place.index]
        return memory


class Capture:
    """One source being captured."""

    def __init__(self, order: Order, pipe: Pipe[Told]) -> None:
        self._order = order
        self._pipe = pipe
        self._places = Places(pipe)
        self._known = False  # whether places have ever been asked for
        self.frames = 0  # gone by so far
        self.turns = 0  # of them, those that `fps` does not leave out

    def run(self) -> None:
        """Capture until the source ends. Raises EOFError or OSError when the parent is gone."""
        try:
            reader = open_reader(self._order)
        except CannotOpen as error:
            self._pipe.send(Ended(redacted(str(error)), 0, 0, well=False))
            return
        except OSError as error:
            self._pipe.send(Ended(f"it cannot be read: {error.strerror}", 0, 0, well=False))
            return
        self._pipe.send(Opened(reader.fps, reader.frames))
        self._read(reader)
        well, message = reader.end()
        self._pipe.send(Ended(message, self.frames, self.turns, well))

    def _read(self, reader: Reader) -> None:
        thinning = self._thinning(reader)
        realtime = self._order.kind == SourceKind.REALTIME.value
        clock = Clock(reader.fps, time.monotonic()) if realtime else None
        while self._on_time(clock) and reader.grab():
            now = time.monotonic()
            if thinning is None or thinning.keeps(self.frames, now):
                missed = clock is not None and now > clock.due(self.frames + 1)  # a camera would not have waited
                if not missed:
                    self._keep(reader, now)
                self.turns += 1
            self.frames += 1

    def _thinning(self, reader: Reader) -> Thinning | None:
        if self._order.fps is None or self._order.kind == SourceKind.FOLDER.value:
            return None
        recorded = self._order.kind in _RECORDED
        return ByNumber(self._order.fps, reader.fps) if recorded and reader.fps else ByTime(self._order.fps)

    def _on_time(self, clock: Clock | None) -> bool:
        """Wait until the next frame is due."""
        while clock is not None and (left := clock.due(self.frames) - time.monotonic()) > 0:
            self._places.pause(left)
        return True

    def _keep(self, reader: Reader, now: float) -> None:
        """Put the frame that was grabbed into a place; without a place it is dropped."""
        place = self._places.claim(self._order.waits and self._known)
        if place is None and self._known:
            return
        if self._order.waits:
            now = time.monotonic()
        try:
            place, pixels = self._take(reader, place)
        except Unreadable as error:
            if place is not None:
                self._places.put_back(place)
            self._pipe.send(DecodeError(self.frames, self.turns, now, reader.position(), redacted(str(error))))
            return
        height, width = pixels.shape[:2]
        self._pipe.send(Captured(place.number, self.frames, self.turns, now, reader.position(), height, width))

    def _take(self, reader: Reader, place: Place | None) -> tuple[Place, Frame]:
        """The frame in a place: straight where it was decoded to, or copied where its size was not known before."""
        shape = reader.shape()
        target = self._view(place, shape) if place is not None and shape is not None else None
        pixels = reader.take(target)
        if place is not None and target is not None and np.shares_memory(pixels, target):
            return place, target
        while place is None or place.size < pixels.size:
            self._places.void(pixels.size)
            self._known = True
            self._pipe.send(Needs(pixels.size))
            place = self._places.claim(waits=True)
        view = self._view(place, pixels.shape[:2])
        assert view is not None
        view[:] = pixels
        return place, view

    def _view(self, place: Place, shape: tuple[int, ...]) -> Frame | None:
        height, width = shape
        size = height * width * 3
        return self._places.memory(place)[:size].reshape(height, width, 3) if size <= place.size else None


def capture(order: Order, pipe: Pipe[Told]) -> None:
    """Capture a source to its end, of whatever kind that is."""
    running = Capture(order, pipe)
    try:
        running.run()
    except (EOFError, OSError):
        raise
    except Exception as error:  # OpenCV's, which are of many kinds
        pipe.send(Ended(redacted(f"{type(error).__name__}: {error}"), running.frames, running.turns, well=False))


def run(connection: Connection) -> None:
    """The whole of a capture process: take an Order and carry it out."""
    pipe: Pipe[Told] = Pipe(connection, Told)  # type: ignore[arg-type]
    try:
        order = pipe.receive()
        if isinstance(order, Order):
            capture(order, pipe)
    except (EOFError, OSError):
        os._exit(1)  # the parent is gone, or does not want more
    os._exit(0)  # threads of FFmpeg and mapped views need no orderly end
