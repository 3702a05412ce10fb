"""Answers that were given before, so that the same question is not computed twice. Bounded; off unless asked for.

A question is a model as it is served, what its payload holds, and every field of the request that an answer depends
on: options, tensors, kind of payload and format. The payload counts by its SHA-256, so that nobody can make a picture
that gets another one's answer. A model that is loaded, reloaded or unloaded takes all its answers with it.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from hashlib import sha256
from typing import Any, NamedTuple

from parallel_infer.protocol import Infer, Tensor

_OVERHEAD = 1024  # bytes that an entry takes besides what it holds, about


class Question(NamedTuple):
    """What an answer depends on."""

    model: str
    opening: int  # which loading of that name
    kind: str
    format: str
    tensors: tuple[Tensor, ...]
    options: bytes
    payload: bytes  # its SHA-256


class CachedAnswer(NamedTuple):
    """An answer as a postprocess worker gave it."""

    body: bytes
    payload: bytes

    @property
    def size(self) -> int:
        """Bytes that it takes here."""
        return len(self.body) + len(self.payload) + _OVERHEAD


class ResponseCache:
    """The answers used last, in at most `limit` bytes; 0: none are kept, and no payload is hashed."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._answers: OrderedDict[Question, CachedAnswer] = OrderedDict()  # the one used last at the end
        self._openings: dict[str, int] = {}
        self._numbers = itertools.count(1)
        self.used = 0
        self.evicted = 0

    @property
    def enabled(self) -> bool:
        """Whether answers are kept."""
        return self._limit > 0

    def opened(self, model: str) -> None:
        """A model is served under this name from now on; what was answered under it before is forgotten."""
        self.closed(model)
        self._openings[model] = next(self._numbers)

    def closed(self, model: str) -> None:
        """No model is served under this name any more."""
        self._openings.pop(model, None)
        for question in [question for question in self._answers if question.model == model]:
            self.used -= self._answers.pop(question).size

    def question(self, request: Infer, payload: Any) -> Question | None:
        """What a request asks; None where answers are not kept, or its model is not served."""
        opening = self._openings.get(request.model)
        if not self._limit or opening is None:
            return None
        parts = request.model, opening, request.kind, request.format, request.tensors, bytes(request.options)
        return Question(*parts, sha256(payload).digest())

    def get(self, question: Question) -> CachedAnswer | None:
        """The answer that this question got before."""
        found = self._answers.get(question)
        if found is not None:
            self._answers.move_to_end(question)
        return found

    def put(self, question: Question, body: bytes, payload: Any) -> None:
        """Keep an answer, and forget those not used for longest where there are too many bytes."""
        answer = CachedAnswer(body, memoryview(payload).tobytes())
        if question.opening != self._openings.get(question.model) or answer.size > self._limit:
            return
        known = self._answers.pop(question, None)
        self.used += answer.size - (0 if known is None else known.size)
        self._answers[question] = answer
        while self.used > self._limit:
            _, oldest = self._answers.popitem(last=False)
            self.used -= oldest.size
            self.evicted += 1

    def status(self) -> dict[str, int]:
        """Limit and use in bytes, answers kept, and answers forgotten for want of room."""
        return {"limit": self._limit, "used": self.used, "answers": len(self._answers), "evicted": self.evicted}
