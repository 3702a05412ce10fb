"""Admission: from a client's request to a job inside, its payload in a slot."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from parallel_infer import protocol
from parallel_infer.chains.plan import Node
from parallel_infer.errors import BadInput, Poison, QueueFull, ResourceUnavailable, ServerStopping, UnknownModel
from parallel_infer.gateway.composites import Composites, check_pixels
from parallel_infer.gateway.counters import UNNAMED
from parallel_infer.gateway.fairness import RETRY_AFTER, Share, Shares
from parallel_infer.gateway.handover import STOPPING
from parallel_infer.gateway.ingress import Ingress
from parallel_infer.gateway.lending import Lending
from parallel_infer.gateway.pending import PendingJob, Requester
from parallel_infer.gateway.readiness import SyntheticJob, synthetic_job
from parallel_infer.gateway.replies import KNOWN, Replies
from parallel_infer.gateway.requests import admitted_kind
from parallel_infer.gateway.response_cache import Question, ResponseCache
from parallel_infer.ipc.messages import OWN_PRIORITY, Admit, AnswerFormat, ModelOpened, Refused, SlotRef
from parallel_infer.limits import payload_too_large


class Admission:
    """Lets jobs in while there is room, and no client more than its share."""

    def __init__(
        self,
        replies: Replies,
        ingress: Ingress,
        lending: Lending,
        cache: ResponseCache,
        models: Mapping[str, ModelOpened],
        number: Callable[[], int],
        clock: Callable[[], float],
        composites: Composites,
        max_payload: int,
        timeout: float,
    ) -> None:
        self._replies = replies
        self._ingress = ingress
        self._lending = lending
        self._cache = cache
        self.models = models
        self._number = number
        self._clock = clock
        self.composites = composites
        self.max_payload = min(max_payload, ingress.largest)
        self._timeout = timeout
        self.shares = Shares()
        self.closed = False  # the server is stopping
        self._full: dict[str, tuple[float, str]] = {}  # model -> until when its queue is, and what is said of it
        self.unsent: list[SyntheticJob] = []  # that wait for a slot

    def infer(self, request: protocol.Infer, requester: Requester, payload: memoryview | None) -> None:
        """Admit a job. Raises InferError where it cannot be."""
        opened = self.models.get(request.model)
        nodes: tuple[Node, ...] = ()
        if opened is None:
            nodes = self.composites.nodes(request.model)
            opened = self.models[nodes[0].model]
        key = requester.key(request.id)
        if self._replies.pending.of(key) is not None:
            return  # sent again by a client that lost its connection; it will be answered once
        if self.closed:
            raise ServerStopping(STOPPING)
        now = self._clock()
        kind = admitted_kind(request)
        if nodes:
            check_pixels(request.model, nodes, kind)
            nodes = self.composites.asked(nodes, bytes(request.options))
        question = self._question(request, requester, payload, now, nodes) if self._cache.enabled else None
        again = self._replies.answer_again
        if question is not None and again(question, requester, source_name(request), now, part=request.part is True):
            return
        share = self.shares.of(_asker(request, requester), request.model, now)
        try:
            self.shares.check(share, request.model, opened.plan.queue_size)
            for model in (node.model for node in nodes) if nodes else (request.model,):
                self._check_queue(share, request.model, model, now)
            ref = self._store(request, requester, payload, now, share)
        except ResourceUnavailable:
            self._replies.counts["rejected"] += 1
            raise
        if question is not None and request.slot is not None:
            ref, question = self._keep_still(request, ref, share, nodes)
        admit = Admit(
            self._number(),
            request.model,
            ref,
            kind,
            request.tensors,
            bytes(request.options),
            AnswerFormat.OBJECTS if request.format == "objects" else AnswerFormat.ARRAYS,
            now,
            now + (self._timeout if request.timeout is None else request.timeout),
            request.priority,
            f"{requester.client.hex()}/{request.source}" if request.drop == "latest" else "",
        )
        pending = PendingJob(requester, admit, key, share, source_name(request), question, part=request.part is True)
        if nodes:
            self.composites.begin(pending, nodes)
        else:
            self._replies.admit(pending)

    def note_refusal(self, refused: Refused) -> None:
        """The dispatcher has refused a job: where its queue is full, more is refused here, before it is copied."""
        pending = self._replies.pending.jobs.get(refused.job)
        if pending is not None and refused.reason == QueueFull.reason:
            self._full[pending.admit.model] = self._clock() + refused.retry_after, refused.text

    def _check_queue(self, share: Share, name: str, model: str, now: float) -> None:
        """Raises QueueFull while a queue is full that this client, asking for `name`, has jobs in; others may try."""
        if model not in self._full or not share.pending[name]:
            return
        until, text = self._full[model]
        if now < until:
            raise QueueFull(text, until - now)
        del self._full[model]

    def _question(
        self,
        request: protocol.Infer,
        requester: Requester,
        payload: memoryview | None,
        now: float,
        nodes: tuple[Node, ...],
    ) -> Question | None:
        """What is asked, where an answer to it may be kept; None where the payload will be refused."""
        if request.slot is not None:
            payload = self._lending.read(self._lending.ref(requester.client, request.slot, now))
        return self._cache.question(request, payload, nodes) if payload and len(payload) <= self.max_payload else None

    def _keep_still(
        self, request: protocol.Infer, lent: SlotRef, share: Share, nodes: tuple[Node, ...]
    ) -> tuple[SlotRef, Question | None]:
        """A copy of a lent payload, and the question that it is; the lent one, and no question, where there is no room.

        The client may change a lent slot before it is decoded. An answer is kept only for bytes that nobody changes.
        """
        content = self._lending.read(lent)
        ref = self._ingress.store(content, lent.size, share.slots, self.shares.clients)
        return (lent, None) if ref is None else (ref, self._cache.question(request, self._ingress.read(ref), nodes))

    def _store(
        self, request: protocol.Infer, requester: Requester, payload: memoryview | None, now: float, share: Share
    ) -> SlotRef:
        if request.slot is not None:
            if request.slot.size > self.max_payload:  # the same picture fares the same, whichever way it comes
                raise BadInput(payload_too_large(request.slot.size, self.max_payload))
            ref = self._lending.ref(requester.client, request.slot, now)
            self._check_harmless(request, self._lending.read_steady(ref) if self._replies.poison else None)
            return ref
        if not payload:
            raise BadInput("the payload is empty: send the picture's bytes as the second frame")
        size = len(payload)
        if size > self.max_payload:
            raise BadInput(payload_too_large(size, self.max_payload))
        self._check_harmless(request, payload)
        clients = self.shares.clients
        stored = self._ingress.store(payload, size, share.slots, clients)
        if stored is None:
            among = f", or this client has its part among {clients}" if clients > 1 else ""
            raise ResourceUnavailable(
                f"every slot for payloads of {size} bytes is taken{among} (option shared_memory_mb); try again later",
                RETRY_AFTER,
            )
        return stored

    def _check_harmless(self, request: protocol.Infer, payload: memoryview | None) -> None:
        """Raises Poison for a payload that is known to kill workers."""
        poison = self._replies.poison
        if poison and payload is not None and poison.knows(admitted_kind(request), request.model, payload):
            raise Poison(KNOWN)

    def send_synthetic(self) -> None:
        """Send the synthetic jobs there are slots for. The others wait for one: load is no fault."""
        now = self._clock()
        waiting, self.unsent = self.unsent, []
        for job in waiting:
            opened = self.models.get(job.model)
            if opened is None:
                job.error(UnknownModel.code, "it is served no more")
                continue
            kind, tensors, content = synthetic_job(opened)
            ref = self._ingress.store(content, len(content)) if len(content) <= self.max_payload else None
            if ref is None:
                if now < job.until:
                    self.unsent.append(job)
                else:
                    job.error(ResourceUnavailable.code, "no slot is free")
                continue
            admit = Admit(
                *(self._number(), job.model, ref, kind, tensors, b"\x80", AnswerFormat.ARRAYS),
                *(now, now + job.patience, OWN_PRIORITY, ""),
            )
            self._replies.admit(PendingJob(job, admit))


def _asker(request: protocol.Infer, requester: Requester) -> bytes:
    """Among whom room is shared: connections, and behind the connections of our own doors their clients."""
    return request.client.encode() if request.client and requester.is_door else requester.client


def source_name(request: protocol.Infer) -> str:
    """The live source a frame belongs to, as its client calls it; "" for a picture that belongs to none."""
    return request.source or (UNNAMED if request.drop == "latest" else "")
