"""Every request but jobs: status, readiness, traces, lent rings, and management.

A request that the dispatcher or the supervisor has to answer first waits here, under a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from parallel_infer import protocol
from parallel_infer.errors import BadInput, InferError, ResourceUnavailable, ServerStopping, error_for
from parallel_infer.gateway.admission import Admission
from parallel_infer.gateway.handover import STOPPING
from parallel_infer.gateway.lending import Lending, in_pages
from parallel_infer.gateway.pending import Outbox, Requester
from parallel_infer.gateway.readiness import PATIENCE, ReadinessCheck
from parallel_infer.gateway.replies import Replies
from parallel_infer.gateway.requests import chain_detail, chain_facts, model_detail, model_facts
from parallel_infer.gateway.tracing import Tracing
from parallel_infer.ipc.messages import (
    LoadChain,
    LoadModel,
    Manage,
    Managed,
    ReloadModel,
    StatusQuery,
    StatusReply,
    StopServer,
    Traced,
    TraceQuery,
    UnloadModel,
)
from parallel_infer.limits import payload_too_large
from parallel_infer.model_spec import is_hidden
from parallel_infer.observe.histogram import BOUNDS

Management = protocol.Load | protocol.LoadChain | protocol.Reload | protocol.Unload | protocol.Stop


class Queries:
    """Answers requests at once, or when the process that was asked has answered."""

    def __init__(
        self,
        outbox: Outbox,
        replies: Replies,
        admission: Admission,
        lending: Lending,
        own_status: Callable[[], dict[str, Any]],
        number: Callable[[], int],
        clock: Callable[[], float],
        greeting: protocol.Greeting,
    ) -> None:
        self._outbox = outbox
        self._replies = replies
        self._admission = admission
        self._own_status = own_status
        self._number = number
        self._clock = clock
        self._lending = lending
        self._greeting = greeting
        self._waiting: dict[int, Requester] = {}
        self.checks: dict[int, ReadinessCheck] = {}  # that wait for what the dispatcher says

    # --- from clients ------------------------------------------------------------------------------------------------

    def hello(self, requester: Requester) -> None:
        """What this server takes, and who it is."""
        requester.result(self._greeting)

    def lend(self, request: protocol.Lend, requester: Requester) -> None:
        """Memory for a client of this machine.

        Raises BadInput for others and for slots larger than what may be sent in them, and ResourceUnavailable.
        """
        if not requester.is_local:
            raise BadInput("slots are lent to clients on the same machine only: connect through ipc://")
        now = self._clock()
        if request.ring is not None:
            requester.result(self._lending.renew(requester.client, request.ring, now))
        elif request.size > in_pages(self._admission.max_payload):
            raise BadInput(payload_too_large(request.size, self._admission.max_payload))
        else:
            steady = requester.is_door
            requester.result(self._lending.lend(requester.client, request.slots, request.size, now, steady=steady))

    def give_back(self, request: protocol.GiveBack, requester: Requester) -> None:
        """Take lent memory back."""
        self._lending.give_back(requester.client, request.ring)
        requester.result({})

    def models(self, request: protocol.Models, requester: Requester) -> None:
        """What is served."""
        if request.detail:
            chains = self._admission.composites.whole_chains()
            models = [model_detail(opened) for opened in self._admission.models.values()]
            requester.result(models + [chain_detail(*chain) for chain in chains])
        else:
            requester.result(self._model_list())

    def status(self, requester: Requester) -> None:
        """Ask the dispatcher for the status."""
        self._outbox.send(StatusQuery(self._query(requester)))

    def ready(self, requester: Requester) -> None:
        """Whether a picture gets through every stage of every model; none does while the server stops."""
        names = [name for name in self._admission.models if not is_hidden(name)]
        done = requester.result
        if self._admission.closed:
            refused = f"{ServerStopping.code}: {STOPPING}"
            done({"ready": False, "models": dict.fromkeys(names, refused), "states": {}})
            return
        number = self._number()
        self.checks[number] = ReadinessCheck(names, self._clock() + PATIENCE, done)
        self._outbox.send(StatusQuery(number))

    def trace(self, request: protocol.Trace, requester: Requester) -> None:
        """Record what every process does for a while. Raises ResourceUnavailable while a trace is being recorded."""
        if self._replies.tracing is not None:
            raise ResourceUnavailable("a trace is being recorded already; try again later")
        self._replies.tracing = Tracing(self._clock)
        self._outbox.send(TraceQuery(self._query(requester), request.seconds))

    def manage(self, request: Management, requester: Requester) -> None:
        """Load, unload, stop: the supervisor does it."""
        self._outbox.send(_to_supervisor(request, self._query(requester)))

    # --- from inside -------------------------------------------------------------------------------------------------

    def on_status(self, message: StatusReply) -> None:
        """What the dispatcher tells, for a check or for a client."""
        check = self.checks.pop(message.query, None)
        if check is not None:
            self._admission.unsent += check.begin(message.status, self._clock())
            self._admission.send_synthetic()
        requester = self._waiting.pop(message.query, None)
        if requester is not None:
            times = {"bounds": BOUNDS, "models": self._replies.tally.times()}
            ours = {"gateway": self._own_status(), "served": self._model_list(), "times": times}
            status = msgspec.structs.asdict(message.status)
            status["draining"] = status["draining"] or self._admission.closed  # by the flag that admission goes by
            requester.result({**status, **ours})

    def on_traced(self, message: Traced) -> None:
        """A trace is over."""
        requester, tracing = self._waiting.pop(message.query, None), self._replies.tracing
        if requester is not None and tracing is not None:
            self._replies.tracing = None
            requester.result(tracing.result(message))

    def on_managed(self, message: Managed) -> None:
        """The supervisor has done what a client asked for, or says why not."""
        requester = self._waiting.pop(message.query, None)
        if requester is None:
            return
        if message.code:
            self._replies.error(requester, error_for(message.code, message.text))
        else:
            requester.result(message.result)

    # --- what waits --------------------------------------------------------------------------------------------------

    def timers(self) -> Iterator[float]:
        """When `expire` has something to do."""
        yield from (check.deadline for check in self.checks.values())

    def expire(self, now: float) -> None:
        """Give up checks that the dispatcher did not answer in time."""
        for number in [number for number, check in self.checks.items() if check.deadline <= now]:
            self.checks.pop(number).give_up()

    def refuse(self, error: InferError) -> None:
        """Reply with an error to every request that waits."""
        for number in list(self._waiting):
            self._replies.error(self._waiting.pop(number), error)
        self._replies.tracing = None

    def _query(self, requester: Requester) -> int:
        number = self._number()
        self._waiting[number] = requester
        return number

    def _model_list(self) -> list[dict[str, Any]]:
        models = [model_facts(opened) for name, opened in self._admission.models.items() if not is_hidden(name)]
        return models + [chain_facts(*chain) for chain in self._admission.composites.whole_chains()]


def _to_supervisor(request: Management, number: int) -> Manage:
    match request:
        case protocol.Load():
            options = msgspec.Raw(msgspec.msgpack.encode(request.options))
            return LoadModel(number, request.name, request.path, options)
        case protocol.LoadChain():
            return LoadChain(number, request.name, request.steps)
        case protocol.Reload():
            return ReloadModel(number, request.name)
        case protocol.Unload():
            return UnloadModel(number, request.name)
        case protocol.Stop():
            return StopServer(number)
