"""What `submit` returns."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError

from parallel_infer.answers.answer import Answer
from parallel_infer.client.connection import Connection
from parallel_infer.client.payload import Payload
from parallel_infer.client.pending import Outcome, Pending
from parallel_infer.client.requests import Job, answer_of
from parallel_infer.client.submit_thread import SubmitThread
from parallel_infer.errors import InferError
from parallel_infer.job_status import JobStatus
from parallel_infer.seconds import checked_patience


class InferFuture(Future[Answer]):
    """A job on its way. `result(timeout)` is its answer, or raises its named error."""

    def __init__(self, forget: Callable[[InferFuture], None], thread: SubmitThread) -> None:
        super().__init__()
        self._forget = forget
        self._thread = thread  # receives the answer and runs callbacks
        self._pending: Pending | None = None

    def wait(self, timeout: float | None = None) -> JobStatus:
        """Wait up to `timeout` seconds, with None until there is an outcome; never raises the job's error.

        Raises BadInput for a `timeout` that is no number of seconds, and as `result` does in a callback.
        """
        patience = checked_patience(timeout)
        self._check_place(patience)
        concurrent.futures.wait([self], patience)
        return JobStatus.DONE if self.done() else JobStatus.PENDING

    def result(self, timeout: float | None = None) -> Answer:
        """The answer, waited for up to `timeout` seconds, or the job's named error raised.

        Raises BadInput in a callback of the same client, where an answer that is not there yet would never come.
        """
        self._check_place(timeout)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The job's error, waited for like `result`; None where there is an answer."""
        self._check_place(timeout)
        return super().exception(timeout)

    def cancel(self) -> bool:
        """Give the job up and ask the server to forget it. False where the outcome is already there."""
        if self.cancelled():
            return True
        if not super().cancel():
            return False
        with contextlib.suppress(InvalidStateError, RuntimeError):
            self.set_running_or_notify_cancel()  # wakes those who wait
        self._forget(self)
        return True

    def settle(self, outcome: Outcome) -> None:
        """Called once by the client with the outcome of the job; one that was cancelled meanwhile stays so."""
        with contextlib.suppress(InvalidStateError):
            try:
                self.set_result(answer_of(outcome))
            except InferError as error:
                self.set_exception(error)

    def send(self, job: Job, payload: Payload, started: float, connection: Connection) -> None:
        """Post the job, in the thread of the connection; its time runs since `started`."""
        if self.cancelled():
            return
        self._pending = job.pending(connection, payload, self._settled)
        self._pending.deadline = started + job.timeout
        connection.post(self._pending)

    def abandon(self, connection: Connection) -> None:
        """Take the job back, in the thread of the connection."""
        if self._pending is not None:
            connection.abandon(self._pending)

    def _check_place(self, timeout: float | None) -> None:
        if timeout != 0 and not self.done():
            self._thread.check_place("wait for another future")

    def _settled(self, pending: Pending, outcome: Outcome) -> None:
        self.settle(outcome)
