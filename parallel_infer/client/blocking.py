"""The client whose calls block, and `submit` for those that shall not."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from parallel_infer import protocol
from parallel_infer.answers.answer import Answer
from parallel_infer.client.arguments import (
    Drop,
    Errors,
    checked_address,
    checked_callback,
    checked_drop,
    checked_errors,
    checked_in_flight,
    checked_name,
    checked_path,
    checked_plain,
    checked_source,
    checked_steps,
)
from parallel_infer.client.connection import Connection
from parallel_infer.client.connection_pool import ConnectionPool
from parallel_infer.client.endpoint import Address
from parallel_infer.client.futures import InferFuture
from parallel_infer.client.greeting import before_reading
from parallel_infer.client.held_frame import HeldFrame, hold
from parallel_infer.client.minder import drive
from parallel_infer.client.model_options import model_options
from parallel_infer.client.payload import Picture, payload_of
from parallel_infer.client.pending import Outcome, Pending
from parallel_infer.client.requests import (
    IN_FLIGHT,
    LOAD_TIMEOUT,
    LONGEST_WAIT,
    STREAM_IN_FLIGHT,
    Job,
    Models,
    answer_of,
    job_of,
    result_of,
)
from parallel_infer.client.streaming import Stream
from parallel_infer.client.submit_thread import SubmitThread
from parallel_infer.client.window import Window
from parallel_infer.errors import InferError, ServerUnavailable
from parallel_infer.keys.client import HasKeys, Key
from parallel_infer.seconds import checked_timeout

_clients: weakref.WeakSet[Client] = weakref.WeakSet()


class Client:
    """Speaks with one server, or several ("tcp://a:5555,tcp://b:5555"): one is in use, and the next when it is lost.

    May be used by many threads; close it, or use it in a `with`.

    Every call ends within its timeout: with an answer, or with an error of `parallel_infer.errors`; where nobody
    answers that is ServerUnavailable. A server that restarts within the timeout is not noticed. Arrays handed in must
    not change until their answer is there.
    """

    def __init__(
        self,
        address: str = "tcp://127.0.0.1:5555",
        key: str | os.PathLike[str] | HasKeys | None = None,
        timeout: float = 5.0,
    ) -> None:
        self.timeout = checked_timeout(timeout)  # seconds, for calls that name none
        self._address = Address(checked_address(address), None if key is None else Key.of(key))
        self._held = threading.local()  # the frame this thread is filling
        self._open()
        _clients.add(self)

    def infer(
        self, model: Models, picture: Picture, *, timeout: float | None = None, priority: int = 0, **options: Any
    ) -> Answer:
        """The answer for one picture: a path, encoded bytes, a uint8 frame [h, w, 3] BGR, Pillow's picture, or tensors.

        Options are those of the model's task (confidence=, iou=, ...); color="rgb" where frames are in that order. A
        higher `priority`, -100 to 100, goes first.
        """
        job = job_of(model, self._timeout(timeout), priority, options)
        held: tuple[HeldFrame, Connection] | None = getattr(self._held, "frame", None)
        if held is not None and picture is held[0].array:
            frame, connection = held
            return answer_of(connection.ask(frame.pending(job, connection)))
        with self._pool.connection() as connection:
            before_reading(picture, connection, job.timeout)
            payload = payload_of(picture, job.color, connection.terms.most)
            return answer_of(connection.ask(job.pending(connection, payload)))

    def submit(
        self,
        model: Models,
        picture: Picture,
        *,
        timeout: float | None = None,
        priority: int = 0,
        callback: Callable[[InferFuture], Any] | None = None,
        **options: Any,
    ) -> InferFuture:
        """Send a picture and return at once. `callback` gets the future when it is done, in a thread of the client."""
        job = job_of(model, self._timeout(timeout), priority, options)
        return self._submit(job, self._safe(picture), checked_callback(callback))

    def infer_many(
        self,
        model: Models,
        pictures: Iterable[Picture],
        *,
        in_flight: int | None = None,
        timeout: float | None = None,
        errors: Errors = "raise",
        **options: Any,
    ) -> list[Answer | InferError]:
        """Answers for many pictures, in their order, up to `in_flight` (64) at a time; pictures are pulled as they go.

        Pictures that the server has no room for are sent again, each within its timeout. "raise" raises the first
        error after all are done; "return" leaves errors in their places.
        """
        job = job_of(model, self._timeout(timeout), 0, options)
        room, errors = checked_in_flight(in_flight, IN_FLIGHT), checked_errors(errors)
        pictures = checked_plain(pictures)
        with self._pool.connection() as connection:
            window = Window(connection, job, room)
            try:
                drive(window, connection, pictures)
            except BaseException:
                window.abandon()
                raise
            return window.results(errors)

    def stream(
        self,
        model: Models,
        frames: Iterable[Picture],
        *,
        drop: Drop = "none",
        source: str = "",
        in_flight: int | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Iterator[tuple[int, Answer | InferError]]:
        """(frame number, answer or error) of a live source, in order, as soon as they are there.

        "none" answers every frame and slows the source down; "latest" never does: a newer frame takes the place of one
        that waits, which is answered with Dropped. `source` names the stream to the server.
        """
        job = job_of(model, self._timeout(timeout), 0, options)
        job = job._replace(source=checked_source(source), drop=checked_drop(drop))
        room = checked_in_flight(in_flight, STREAM_IN_FLIGHT[job.drop])
        self._submit_thread.check_place("follow a stream")
        return Stream(self._submit, job, checked_plain(frames, "frames"), room).run()

    @contextlib.contextmanager
    def frame(self, height: int, width: int) -> Iterator[npt.NDArray[np.uint8]]:
        """A frame to fill, uint8 [height, width, 3] BGR, that `infer` of the same thread sends without a copy.

        It lies in memory that the server lent, where the server is on this machine (ipc://) and has room; else it is
        an ordinary array. It may be filled and sent many times; it is void after the `with`.
        """
        with self._pool.connection() as connection:
            frame = hold(connection, height, width, self.timeout)
            outer = getattr(self._held, "frame", None)
            self._held.frame = frame, connection
            try:
                yield frame.array
            finally:
                self._held.frame = outer
                frame.release()

    def models(self) -> Any:
        """What is served."""
        return self._ask(protocol.Models)

    def status(self) -> Any:
        """How the server is: processes, queues, rings, counters."""
        return self._ask(protocol.Status)

    def ready(self) -> bool:
        """Whether a picture gets through every stage of every model."""
        return bool(self.health()["ready"])

    def health(self) -> Any:
        """What `ready` found: "ready" in all, "models" by name ("ready", or why not), and the "states" they are in."""
        return self._ask(protocol.Ready)

    def trace(self, seconds: float = 5.0) -> Any:
        """What every process did for the next `seconds`; `parallel_infer.observe.chrome_trace` makes a file of it."""
        seconds = checked_timeout(seconds, protocol.MAX_TRACE, "seconds")
        return self._ask(protocol.Trace, seconds + self.timeout, seconds=seconds)

    def load(self, name: str, path: str | os.PathLike[str], *, timeout: float = LOAD_TIMEOUT, **options: Any) -> Any:
        """Have the server serve a model file of its machine under `name`, in place of the model of that name.

        The result has the `warnings` of the model, each with the option that settles it, and the `evidence` for what
        it was taken for. `options` are those of a model's table in the configuration.
        """
        fields = {"name": checked_name(name), "path": checked_path(path), "options": model_options(options)}
        return self._ask_in_turn(protocol.Load, timeout, **fields)

    def load_chain(self, name: str, steps: str) -> Any:
        """Have the server serve the chain `steps`, such as "detector(class_filter=car) > reader", under `name`.

        It takes the place of the chain of that name; requests under way end with the one that they began with.
        """
        return self._ask_in_turn(protocol.LoadChain, name=checked_name(name), steps=checked_steps(steps))

    def unload(self, name: str) -> Any:
        """Have the server stop serving a model or a chain; the result has `warnings` about chains that need it."""
        return self._ask_in_turn(protocol.Unload, name=checked_name(name))

    def stop(self) -> Any:
        """Have the server stop: it answers what it has admitted and refuses the rest with ServerStopping."""
        return self._ask_in_turn(protocol.Stop)

    def close(self) -> None:
        """Close all connections. Jobs still on their way fail with ServerUnavailable."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _open(self) -> None:
        self._pool = ConnectionPool(self._address)
        self._submit_thread = SubmitThread(self._address)
        self._finalizer = weakref.finalize(self, _close, self._pool, self._submit_thread)

    def _start_over(self) -> None:
        """In a child after a fork: sockets are the parent's; keep them untouched and open own ones."""
        self._finalizer.detach()
        self._inherited = self._pool, self._submit_thread
        self._held = threading.local()
        if not self._pool.closed:
            self._open()

    def _ask(self, kind: type[protocol.Request], timeout: float | None = None, **fields: Any) -> Any:
        with self._pool.connection() as connection:
            request = kind(id=connection.number(), **fields)
            return result_of(connection.ask(Pending(request, checked_timeout(self._timeout(timeout), LONGEST_WAIT))))

    def _ask_in_turn(self, kind: type[protocol.Request], timeout: float | None = None, **fields: Any) -> Any:
        """The same, over the connection of what was submitted before (heard of first); in a callback, over another."""
        if not self._submit_thread.is_used or self._submit_thread.is_here:
            return self._ask(kind, timeout, **fields)
        seconds = checked_timeout(self._timeout(timeout), LONGEST_WAIT)
        outcome: Future[Outcome] = Future()

        def post(connection: Connection) -> None:
            request = kind(id=connection.number(), **fields)
            connection.post(Pending(request, seconds, sink=lambda pending, found: outcome.set_result(found)))

        self._submit_thread.run(post)
        return result_of(outcome.result())

    def _submit(self, job: Job, picture: Picture, callback: Callable[[InferFuture], Any] | None) -> InferFuture:
        future = InferFuture(self._forget, self._submit_thread)
        if callback is not None:
            future.add_done_callback(callback)  # type: ignore[arg-type]
        try:
            payload = payload_of(picture, job.color, self._submit_thread.most)
        except InferError as error:
            future.settle(error)
        else:
            self._submit_thread.run(partial(future.send, job, payload, time.monotonic()))
        return future

    def _forget(self, future: InferFuture) -> None:
        with contextlib.suppress(ServerUnavailable):
            self._submit_thread.run(future.abandon)

    def _safe(self, picture: Picture) -> Picture:
        """The frame this thread is filling is copied: its slot may be filled again before the answer is there."""
        held: tuple[HeldFrame, Connection] | None = getattr(self._held, "frame", None)
        return held[0].array.copy() if held is not None and picture is held[0].array else picture

    def _timeout(self, timeout: float | None) -> float:
        return self.timeout if timeout is None else timeout


def _close(pool: ConnectionPool, submit_thread: SubmitThread) -> None:
    pool.close()
    submit_thread.stop()


def _after_fork() -> None:
    for client in list(_clients):
        client._start_over()


os.register_at_fork(after_in_child=_after_fork)
