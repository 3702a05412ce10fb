"""A live source: frames are pulled by a thread of their own, answers come out in order as soon as they are there."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from parallel_infer.answers.answer import Answer
from parallel_infer.client.futures import InferFuture
from parallel_infer.client.payload import Picture
from parallel_infer.client.requests import Job
from parallel_infer.errors import Dropped, InferError

Submit = Callable[[Job, Picture, Callable[[InferFuture], Any]], InferFuture]


class _Place:
    """One frame, from being pulled to its outcome being handed out."""

    __slots__ = ("future", "outcome")

    def __init__(self) -> None:
        self.future: InferFuture | None = None
        self.outcome: Answer | InferError | None = None


class Stream:
    """The frames of one source. At most `in_flight` are sent and not handed out; at most one waits to be sent."""

    def __init__(self, submit: Submit, job: Job, frames: Iterable[Picture], in_flight: int) -> None:
        self._submit = submit
        self._job = job
        self._frames = frames
        self._room = in_flight
        self._places: deque[_Place] = deque()  # in order of the frames
        self._waiting: tuple[_Place, Picture] | None = None
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
            self._changed.wait_for(self._deliverable)
            if not self._places:
                return None
            place = self._places.popleft()
            if place.future is not None:
                self._room += 1
            if self._waiting is not None and self._room:
                waiting, self._waiting = self._waiting, None
                self._send(*waiting)
            self._changed.notify_all()
            return place.outcome

    def _deliverable(self) -> bool:
        return self._places[0].outcome is not None if self._places else self._ended

    def _feed(self) -> None:
        try:
            for frame in self._frames:
                with self._changed:
                    self._take(frame)
                    if self._stopped:
                        break
        except BaseException as error:
            self._failure = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _take(self, frame: Picture) -> None:
        if self._job.drop == "none":
            self._changed.wait_for(lambda: self._room > 0 or self._stopped)
        if self._stopped:
            return
        if self._waiting is not None:
            self._waiting[0].outcome = Dropped("A newer frame of the same source took the place of this one")
            self._waiting = None
        place = _Place()
        self._places.append(place)
        if self._room:
            self._send(place, frame)
        else:
            self._waiting = place, frame
        self._changed.notify_all()

    def _send(self, place: _Place, picture: Picture) -> None:
        self._room -= 1

        def settled(future: InferFuture) -> None:
            with self._changed:
                place.outcome = _outcome(future)
                self._changed.notify_all()

        try:
            place.future = self._submit(self._job, picture, settled)
        except Exception as error:  # the client was closed, or the picture is beyond reading
            self._room += 1
            place.outcome = error if isinstance(error, InferError) else InferError(f"{type(error).__name__}: {error}")

    def _stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._waiting = None
            left = [place.future for place in self._places if place.future is not None]
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
