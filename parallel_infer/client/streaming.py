"""A live source: frames are pulled by a thread of their own, answers come out in order as soon as they are there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from parallel_infer.answers.answer import Answer
from parallel_infer.client.futures import InferFuture
from parallel_infer.client.in_flight_queue import Entry, InFlightQueue, take
from parallel_infer.client.payload import Picture
from parallel_infer.client.requests import Job
from parallel_infer.errors import Dropped, InferError

Submit = Callable[[Job, Picture, Callable[[InferFuture], Any]], InferFuture]


class _Frame(Entry):
    """One frame, from being pulled to its outcome being handed out."""

    def __init__(self, picture: Picture) -> None:
        super().__init__()
        self.picture = picture  # until it is sent
        self.future: InferFuture | None = None


class Stream:
    """The frames of one source. At most `in_flight` are sent and not handed out; at most one waits to be sent."""

    def __init__(self, submit: Submit, job: Job, frames: Iterable[Picture], in_flight: int) -> None:
        self._submit = submit
        self._job = job
        self._frames = frames
        self._queue: InFlightQueue[_Frame] = InFlightQueue(in_flight)
        # Reentrant: a future that is done already calls back at once, in the middle of `_send`.
        self._changed = threading.Condition(threading.RLock())
        self._ended = False
        self._stopped = False
        self._failure: BaseException | None = None

    def run(self) -> Iterator[tuple[int, Answer | InferError]]:
        """(frame number, answer or error) in order; an error of the source itself is raised after the last one."""
        threading.Thread(target=self._feed, name="parallel-infer-stream", daemon=True).start()
        number = 0
        try:
            while (outcome := self._next()) is not None:
                yield number, outcome
                number += 1
            if self._failure is not None:
                raise self._failure
        finally:
            self._stop()

    def _next(self) -> Answer | InferError | None:
        """The outcome of the next frame, once it is there; None after the last."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue.first_done or (self._ended and self._queue.empty))
            frame = self._queue.pop_done()
            if frame is None:
                return None
            if frame.future is not None:
                self._queue.end()
            self._send_waiting()
            self._changed.notify_all()
            return frame.outcome

    def _feed(self) -> None:
        try:
            for picture in self._frames:
                with self._changed:
                    self._take(picture)
                    if self._stopped:
                        break
        except BaseException as error:
            self._failure = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _take(self, picture: Picture) -> None:
        if self._job.drop == "none":
            self._changed.wait_for(lambda: self._queue.has_room or self._stopped)
        if self._stopped:
            return
        take(self._queue, _Frame(picture))
        self._send_waiting()
        self._changed.notify_all()

    def _send_waiting(self) -> None:
        while (frame := self._queue.next_waiting()) is not None:
            self._send(frame)

    def _send(self, frame: _Frame) -> None:
        picture, frame.picture = frame.picture, b""

        def settled(future: InferFuture) -> None:
            with self._changed:
                frame.outcome = _outcome(future)
                self._changed.notify_all()

        try:
            frame.future = self._submit(self._job, picture, settled)
        except Exception as error:  # the client was closed, or the picture is beyond reading
            self._queue.end()
            frame.outcome = error if isinstance(error, InferError) else InferError(f"{type(error).__name__}: {error}")

    def _stop(self) -> None:
        with self._changed:
            self._stopped = True
            left = [frame.future for frame in self._queue if frame.future is not None]
            self._queue.clear()
            self._changed.notify_all()
        for future in left:
            future.cancel()


def _outcome(future: InferFuture) -> Answer | InferError:
    if future.cancelled():
        return Dropped("The stream was closed")
    error = future.exception()
    if error is None:
        return future.result()
    return error if isinstance(error, InferError) else InferError(str(error))
