"""Requests that are several jobs about one picture: fans and chains, from their first job to the one answer.

Each job is one of its model like any other: queued, batched, tried again, and told to nobody but the request it belongs
to. The payload stays in its slot until the last of them is over. No socket and no clock, as in the rest of the core.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from parallel_infer.chains.plan import Node, Served, asked, parts_of, resolve
from parallel_infer.chains.steps import Step, read_chain
from parallel_infer.crops import Crop, CutOut, PicturePart
from parallel_infer.errors import (
    BadInput,
    DeadlineExceeded,
    Dropped,
    Poison,
    ResourceUnavailable,
    ServerUnavailable,
    UnknownModel,
)
from parallel_infer.gateway.assembly import assembled
from parallel_infer.gateway.ingress import Ingress
from parallel_infer.gateway.pending import Outbox, PendingJob
from parallel_infer.gateway.replies import KNOWN, Replies
from parallel_infer.ipc.messages import TIMES, Admit, AllCut, ModelOpened, PayloadKind, Refused, SlotFate
from parallel_infer.model_spec import is_hidden

_WINDOW = 16  # crops of one request that are under way at a time: no picture of many objects holds up others
_PAUSE = 0.005  # seconds at least until a crop that found a full queue is sent again
_MOST_KNOWN = 256  # names whose meaning is kept
_WHOLE = (ResourceUnavailable.code, Dropped.code, ServerUnavailable.code)  # of a first job: the request may come again
_LATE = "the deadline passed before the answer was ready"


class Part:
    """One job of a request, and what came of it."""

    __slots__ = (
        *("_request", "batch", "below", "body", "crop", "failure", "left_out", "node", "object", "payload", "times"),
        "timing",
    )

    def __init__(self, request: Composite, node: Node, index: int = -1, crop: Crop | None = None) -> None:
        self._request = request
        self.node = node
        self.object = index  # in the answer above, that was cut out; -1: it is about the whole picture
        self.crop = crop
        self.body = b""  # empty until it is answered
        self.payload: Any = b""
        self.timing: dict[str, float] = {}
        self.batch = 0
        self.failure: tuple[str, str] | None = None
        self.below: list[Part] = []
        self.left_out: dict[str, int] = {}

    def cut(self, crops: Sequence[CutOut], left_out: Sequence[int]) -> None:
        """What is to be asked about the objects of its answer, which follows."""
        for node, count in zip(self.node.then, left_out, strict=False):
            self.leave_out(node.name, count)
        self.below = [Part(self._request, self.node.then[cut.step], cut.object, cut.crop) for cut in crops]

    def leave_out(self, name: str, count: int = 1) -> None:
        """So many objects are not asked about, being too many."""
        if count:
            self.left_out[name] = self.left_out.get(name, 0) + count

    def answer(self, body: bytes, payload: Any, timing: dict[str, float], batch: int) -> int:
        """Take the job's answer."""
        self.body, self.payload, self.timing, self.batch = body, payload, timing, batch
        self._request.answered(self)
        return len(body) + len(payload)

    def error(self, code: str, text: str, reason: str = "", retry_after: float = 0.0) -> None:
        """Take the job's error."""
        self._request.failed(self, code, text, reason, retry_after)


class Composite:
    """One such request under way. It is over when its pending job has its reply, whoever gave it that."""

    def __init__(self, parent: PendingJob, nodes: Sequence[Node], most: int, composites: Composites) -> None:
        self._parent = parent
        self._most = most  # crops that it may still ask for
        self._composites = composites
        self._roots = [Part(self, node) for node in nodes]
        self._together = tuple(node.model for node in nodes) if len(nodes) > 1 else ()
        self._cuts = any(node.then for node in nodes)  # something may still be cut out of the picture
        self._waiting: deque[Part] = deque()
        self._jobs: dict[int, Part] = {}
        self.retry_at = 0.0  # when crops that found a full queue are sent again

    def begin(self) -> None:
        """Send the first jobs, which are about the whole picture."""
        for root in self._roots:
            self._send(root)
        self._go_on()

    def answered(self, part: Part) -> None:
        """A job has its answer: what it found is cut out."""
        self._ended(part)
        kept = part.below[: self._most]
        for child in part.below[len(kept) :]:
            part.leave_out(child.node.name)
        part.below = kept
        self._most -= len(kept)
        self._waiting += kept
        self._go_on()

    def failed(self, part: Part, code: str, text: str, reason: str, retry_after: float) -> None:
        """A job has an error: its part keeps it, unless it can be tried again or is all there is."""
        self._ended(part)
        if part.crop is not None and code == ResourceUnavailable.code:
            self._waiting.appendleft(part)
            self.retry_at = self._composites.clock() + max(retry_after, _PAUSE)
        elif part.crop is None and (len(self._roots) == 1 or code in _WHOLE):
            self.fail(code, text, reason, retry_after)
            return
        else:
            self._spoil(part, code, text)
        self._go_on()

    def retry(self, now: float) -> None:
        """Send what waited for a pause to be over."""
        if self.retry_at <= now:
            self._go_on()

    def expire(self) -> None:
        """The deadline has passed: what has no answer by now has an error in its place."""
        for part in (*self._jobs.values(), *self._waiting):
            self._spoil(part, DeadlineExceeded.code, _LATE)
        self._waiting.clear()
        self._finish()

    def fail(self, code: str, text: str, reason: str = "", retry_after: float = 0.0) -> None:
        """End the whole request with an error, and its jobs."""
        composites, job = self._composites, self._parent.admit.job
        self._waiting.clear()
        for number in list(self._jobs):
            composites.cancel(number)
        if not self._over:
            composites.replies.refused(Refused(job, code, text, SlotFate.FREE, reason, retry_after))
        composites.resting.discard(self)
        self._end_cutting()

    @property
    def _over(self) -> bool:
        pending = self._composites.replies.pending
        return pending.jobs.get(self._parent.admit.job) is not self._parent

    def _spoil(self, part: Part, code: str, text: str) -> None:
        """A part has an error in its place: the same question may have a better answer next time."""
        part.failure = code, text
        self._parent.question = None

    def _ended(self, part: Part) -> None:
        for number in [number for number, other in self._jobs.items() if other is part]:
            del self._jobs[number]

    def _go_on(self) -> None:
        if self._over:
            self._waiting.clear()
            self._composites.resting.discard(self)
            return
        rests = bool(self._waiting) and self._composites.clock() < self.retry_at
        while self._waiting and len(self._jobs) < _WINDOW and not rests:
            self._send(self._waiting.popleft())
        if rests:
            self._composites.resting.add(self)
        else:
            self._composites.resting.discard(self)
        if self._cuts and not self._waiting and not any(part.node.then for part in self._jobs.values()):
            self._end_cutting()
        if not self._jobs and not self._waiting:
            self._finish()

    def _end_cutting(self) -> None:
        """Nothing more will be cut out: the pixels need not be kept for longer than what has been sent takes."""
        if self._cuts:
            self._cuts = False
            self._composites.outbox.send(AllCut(self._parent.admit.job))

    def _send(self, part: Part) -> None:
        composites, whole, node = self._composites, self._parent.admit, part.node
        admit = Admit(
            *(composites.number(), node.model, whole.ref, whole.kind, whole.tensors, node.options, whole.format),
            received=whole.received if part.crop is None else composites.clock(),
            deadline=whole.deadline,
            priority=whole.priority,
            source=f"{whole.source}/{node.name}" if whole.source and part.crop is None else "",
            part=PicturePart(whole.job, part.crop, node.selections, () if part.crop else self._together),
        )
        if composites.replies.is_poison(admit):
            self._spoil(part, Poison.code, KNOWN)
            return
        self._jobs[admit.job] = part
        composites.ingress.share(whole.ref)
        composites.replies.admit(PendingJob(part, admit, piece=part))

    def _finish(self) -> None:
        composites, whole = self._composites, self._parent.admit
        composites.resting.discard(self)
        self._end_cutting()
        failures = [(root.node.name, root.failure) for root in self._roots if root.failure is not None]
        if len(failures) == len(self._roots):  # nothing to answer with
            (first, (code, text)), *others = failures
            self.fail(code, f"{first}: {text}" + "".join(f"; {name}: {why}" for name, (_, why) in others))
            return
        body, payload = assembled(whole.model, self._roots, whole.format)
        longest = max((root for root in self._roots if root.failure is None), key=lambda root: root.timing["total"])
        times = tuple(longest.timing[name] for name in TIMES)
        composites.replies.composed(whole.job, body, payload, times, longest.batch)


class Composites:
    """All such requests under way, and what names mean."""

    def __init__(
        self,
        outbox: Outbox,
        replies: Replies,
        ingress: Ingress,
        models: Mapping[str, ModelOpened],
        number: Callable[[], int],
        clock: Callable[[], float],
        *,
        max_objects: int,
        max_crops: int,
    ) -> None:
        self.outbox = outbox
        self.replies = replies
        self.ingress = ingress
        self._models = models
        self._texts: Mapping[str, str] = {}
        self.chains: Mapping[str, Step] = {}
        self.number = number
        self.clock = clock
        self._max_objects = max_objects
        self._max_crops = max_crops
        self._known: dict[str, tuple[Node, ...]] = {}
        self.resting: set[Composite] = set()  # whose crops wait for a place in a queue

    # --- what names mean ---------------------------------------------------------------------------------------------

    @property
    def served(self) -> Served:
        """What there is to ask for."""
        specs = {name: opened.plan.spec for name, opened in self._models.items() if not is_hidden(name)}
        return Served(specs, self.chains, self._max_objects)

    def models_changed(self) -> None:
        """A model is served, or is not any more: names may mean something else now."""
        self._known.clear()

    def chains_changed(self, texts: Mapping[str, str]) -> None:
        """These are the chains now. Requests under way have what they began with."""
        self._texts = texts
        self.chains = {name: read_chain(name, text) for name, text in texts.items()}
        self._known.clear()

    def nodes(self, name: str) -> tuple[Node, ...]:
        """What a name asks for that is no model's. Raises UnknownModel and BadInput."""
        found = self._known.get(name)
        if found is None:
            served = self.served
            found = tuple(resolve(part, served) for part in parts_of(name, served))
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[name] = found
        return found

    def whole_chains(self) -> Iterator[tuple[str, ModelOpened, str, tuple[str, ...]]]:
        """Every chain whose models are all served: its name, its first model, its steps, and all of its models."""
        for name, text in self._texts.items():
            with contextlib.suppress(UnknownModel, BadInput):
                (node,) = self.nodes(name)
                yield name, self._models[node.model], text, node.models

    def asked(self, nodes: Sequence[Node], options: bytes) -> tuple[Node, ...]:
        """The same with the options of a request. Raises BadInput."""
        return asked(nodes, self.served, options)

    # --- requests ----------------------------------------------------------------------------------------------------

    def begin(self, pending: PendingJob, nodes: Sequence[Node]) -> None:
        """Take a request in whose payload is in its slot. Raises BadInput where nothing can be cut out of it."""
        composite = pending.composite = Composite(pending, nodes, self._max_crops, self)
        pending.counted = len(nodes) == 1  # of a fan, each part is
        self.replies.admit(pending)
        if not pending.counted:
            self.replies.tally.of(nodes[0].model).bytes_in += pending.admit.ref.size
        composite.begin()

    def cancel(self, number: int) -> None:
        """A job of a request that is over: its reply is of no interest."""
        pending = self.replies.pending.jobs.get(number)
        if pending is not None:
            self.replies.cancel(pending)

    def timers(self) -> Iterator[float]:
        """When `on_timer` has something to do."""
        yield from (composite.retry_at for composite in self.resting)

    def on_timer(self, now: float) -> None:
        """Send again what waited for a place in a queue."""
        for composite in list(self.resting):
            composite.retry(now)


def check_pixels(name: str, nodes: Sequence[Node], kind: PayloadKind) -> None:
    """Raises BadInput where something is to be cut out of what has no pixels."""
    if kind == PayloadKind.TENSORS and any(node.then for node in nodes):
        raise BadInput(
            f"{name!r} cuts objects out of the picture, and tensors have no pixels; send a picture or a frame"
        )
