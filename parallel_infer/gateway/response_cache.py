"""Answers that were given before, so that the same question is not computed twice. Bounded; off unless asked for.

A question is the models that are asked as they are served, what the payload holds, and every field of the request that
an answer depends on: options, tensors, kind of payload and format. Of a fan or a chain, that is every step. The payload
counts by its SHA-256, so that nobody can make a picture that gets another one's answer. A model that is loaded,
reloaded or unloaded takes all its answers with it, those of fans and chains too.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from hashlib import sha256
from typing import Any, NamedTuple

from parallel_infer.chains.plan import Node
from parallel_infer.protocol import Infer, Tensor

_OVERHEAD = 1024  # bytes that an entry takes besides what it holds, about


class Question(NamedTuple):
    """What an answer depends on."""

    model: str  # as it was asked for
    openings: tuple[tuple[str, int], ...]  # every model that answers, and which loading of that name
    steps: tuple[Node, ...]  # of a fan or a chain
    kind: str
    format: str
    tensors: tuple[Tensor, ...]
    options: bytes
    payload: bytes  # its SHA-256

    @property
    def counted(self) -> tuple[str, ...]:
        """Under which names it counts: a fan under those of its first models, all else under its own."""
        return tuple(node.model for node in self.steps) if len(self.steps) > 1 else (self.model,)


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
        for question in [found for found in self._answers if any(name == model for name, _ in found.openings)]:
            self.used -= self._answers.pop(question).size

    def question(self, request: Infer, payload: Any, steps: tuple[Node, ...] = ()) -> Question | None:
        """What a request asks; None where answers are not kept, or a model is not served.

        `steps` are those of the fan or chain that is asked.
        """
        names = dict.fromkeys(name for node in steps for name in node.models) or (request.model,)
        openings = tuple((name, self._openings[name]) for name in names if name in self._openings)
        if not self._limit or len(openings) < len(names):
            return None
        parts = request.kind, request.format, request.tensors, bytes(request.options)
        return Question(request.model, openings, steps, *parts, sha256(payload).digest())

    def get(self, question: Question) -> CachedAnswer | None:
        """The answer that this question got before."""
        found = self._answers.get(question)
        if found is not None:
            self._answers.move_to_end(question)
        return found

    def put(self, question: Question, body: bytes, payload: Any) -> None:
        """Keep an answer, and forget those not used for longest where there are too many bytes."""
        answer = CachedAnswer(body, memoryview(payload).tobytes())
        if answer.size > self._limit or any(self._openings.get(name) != opening for name, opening in question.openings):
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
