"""From the arguments of a call to the request on the wire, and from a result back to plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from parallel_infer.answers.answer import Answer
from parallel_infer.client.arguments import Drop, checked_names, checked_priority
from parallel_infer.client.arrays import Color
from parallel_infer.client.connection import Connection
from parallel_infer.client.payload import Payload
from parallel_infer.client.pending import Outcome, Pending
from parallel_infer.errors import BadInput, InferError
from parallel_infer.limits import MAX_OPTIONS, options_too_large
from parallel_infer.protocol import Infer
from parallel_infer.seconds import checked_timeout

LONGEST_WAIT = 86400.0  # seconds for anything but a job
LOAD_TIMEOUT = 300.0  # seconds; a large model is probed, loaded and warmed before it is served
IN_FLIGHT = 64  # pictures at a time, unless the server takes fewer
STREAM_IN_FLIGHT: dict[Drop, int] = {"none": 16, "latest": 4}  # more would only make frames older

Models = str | Sequence[str]
"""The name of a model or a chain, or several of them that are asked about one picture together."""

_NO_OPTIONS = msgspec.Raw(b"\x80")


class Job(NamedTuple):
    """What the pictures of one call have in common."""

    model: str
    options: msgspec.Raw
    timeout: float
    priority: int = 0
    source: str = ""
    drop: Drop = "none"
    color: Color | None = None  # of frames, where the caller said it

    def pending(
        self, connection: Connection, payload: Payload, sink: Callable[[Pending, Outcome], Any] | None = None
    ) -> Pending:
        """The request for one picture; a frame goes into a slot that the server lent, where there is one."""
        pending = Pending(self.request(connection.number(), payload), self.timeout, payload.data, sink)
        if payload.kind == "frame" and connection.lent is not None:
            slot = connection.lent.claim(len(payload.data))
            if slot is not None:
                slot.array[:] = np.frombuffer(payload.data, np.uint8)
                pending.lend(slot)
        return pending

    def request(self, number: int, payload: Payload) -> Infer:
        """The request for one picture as bytes."""
        return Infer(
            id=number,
            model=self.model,
            kind=payload.kind,
            tensors=payload.tensors,
            timeout=self.timeout,
            priority=self.priority,
            options=self.options,
            source=self.source,
            drop=self.drop,
        )


def job_of(model: Models, timeout: float, priority: int, options: Mapping[str, Any]) -> Job:
    """A job description. Raises BadInput for what no server would take."""
    name = checked_names(model)
    color = options.get("color")
    if color not in (None, "rgb", "bgr"):
        raise BadInput(f"color={color!r} is not known; it is 'rgb' or 'bgr'")
    return Job(name, encode_options(options), checked_timeout(timeout), checked_priority(priority), color=color)


def encode_options(options: Mapping[str, Any]) -> msgspec.Raw:
    """Options of a request as a MessagePack map. Raises BadInput where a value cannot be sent."""
    if not options:
        return _NO_OPTIONS
    try:
        encoded = msgspec.msgpack.encode(options, enc_hook=_plain)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadInput(f"The options cannot be sent: {error}") from error
    if len(encoded) > MAX_OPTIONS:
        raise BadInput(options_too_large(len(encoded)))
    return msgspec.Raw(encoded)


def as_answer(outcome: Outcome) -> Answer | InferError:
    """The outcome of a job, whose result is an answer and nothing else."""
    if isinstance(outcome, (Answer, InferError)):
        return outcome
    return InferError("The server sent something else than an answer")


def answer_of(outcome: Outcome) -> Answer:
    """The answer of a job, or its error raised."""
    found = as_answer(outcome)
    if isinstance(found, InferError):
        raise found
    return found


def result_of(outcome: Outcome) -> Any:
    """The result of any other request as plain values, or its error raised."""
    if isinstance(outcome, InferError):
        raise outcome
    if not isinstance(outcome, msgspec.Raw):
        raise InferError("The server sent something else than a result")
    return msgspec.msgpack.decode(outcome)


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} is no plain value")
