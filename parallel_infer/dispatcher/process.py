"""The dispatcher's process: one bound socket, the core, and a loop that reads as a sentence."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import assert_never

from msgspec import Raw
from msgspec.msgpack import decode, encode

from parallel_infer.dispatcher.core import Core
from parallel_infer.dispatcher.policy import Policy
from parallel_infer.dispatcher.recording import Recording
from parallel_infer.dispatcher.status import status
from parallel_infer.ipc.channel import Hello, Router, new_context
from parallel_infer.ipc.messages import (
    EPOCH_BITS,
    Admit,
    Alive,
    AllCut,
    CancelJob,
    CloseModel,
    Decoded,
    DecodeFailed,
    Drain,
    Expect,
    GatewayUp,
    Inferred,
    LoadChain,
    LoadModel,
    ModelAdded,
    ModelFailed,
    ModelPlan,
    ModelServed,
    OpenModel,
    Overdue,
    Ping,
    Postprocessed,
    PrepareModel,
    ProcessReport,
    RareToDispatcher,
    Recalled,
    Register,
    ReloadModel,
    Started,
    StatusQuery,
    StatusReply,
    StopServer,
    StopWorker,
    StopWorkers,
    SupervisorToDispatcher,
    ToDispatcher,
    Traced,
    TraceQuery,
    UnloadModel,
    WorkerDown,
    WorkerReady,
)
from parallel_infer.loading import load_by_name
from parallel_infer.process.child import Child
from parallel_infer.process.options import DispatcherOptions

_RETRY = 0.01  # seconds between attempts to reach those whose connection to a new dispatcher is under way
_LOOKS = 16  # at most so many times 256 messages are taken in before the clock is looked at
_REACH = 5.0  # seconds for which that is tried


class DispatcherProcess:
    """Carries messages between the other processes and the core."""

    def __init__(
        self, options: DispatcherOptions, policy: Callable[[ModelPlan], Policy], alive: Callable[[], None]
    ) -> None:
        epoch = options.epoch
        self._context = new_context()
        self._router: Router[ToDispatcher] = Router(self._context, options.address, ToDispatcher)
        limits = options.stage_limit, options.cores, options.kept
        self._core = Core(self._router.send, policy, *limits, (epoch << EPOCH_BITS) + 1)
        self._epoch = epoch
        self._running = True
        self._due = math.inf  # the timer that this turn of the loop may wait for
        self._until: float | None = None  # what was sent at the end has time to leave
        self._introduced = False  # the supervisor has said who lives
        self._strangers: set[bytes] = set()  # to be asked to announce themselves
        self._greeted: set[bytes] = set()  # they were asked
        self._reach_until = 0.0  # how long strangers that are not connected yet are tried again
        self._report = ProcessReport({}, {})
        self._alive = alive

    def run_forever(self) -> None:
        """Receive, take in, hand out, send; until told to stop."""
        core, router = self._core, self._router
        while self._running:
            begun = self._take_in(self._timeout())
            now = time.monotonic()
            if self._due <= now:  # what has come by now counts before what is late by now
                begun = begun or now
                self._take_in_all()
            if self._strangers:
                self._greet_strangers()
            core.step(now)
            router.flush()
            if core.leasing.recording is not None:
                self._recorded(core.leasing.recording, begun)

    def _take_in(self, timeout: float | None) -> float:
        """Take in what is there; when that began, 0.0 where nothing was."""
        begun = 0.0
        core = self._core
        for peer, message in self._router.receive(timeout):
            now = time.monotonic()
            begun = begun or now
            # What every job brings is told by its type: a case of `match` asks isinstance, which takes longer.
            if type(message) is Admit:
                if peer == core.ledger.gateway:  # else it was meant for an earlier dispatcher, and will come again
                    core.admit(message, now)
            elif type(message) is Decoded:
                core.decoded(message, now)
            elif type(message) is Inferred:
                core.inferred(message, now)
            elif type(message) is Postprocessed:
                core.postprocessed(message, now)
            else:
                self._take_rare(message, peer, now)
        return begun

    def _take_in_all(self) -> None:
        for _ in range(_LOOKS):
            if not self._router.has_more:
                return
            self._take_in(0)

    def _take_rare(self, message: RareToDispatcher | Hello, peer: bytes, now: float) -> None:
        core = self._core
        match message:
            case DecodeFailed():
                core.decode_failed(message, now)
            case Recalled():
                core.recalled(message, now)
            case CancelJob():
                if peer == core.ledger.gateway:
                    core.cancel(message.job, message.held)
            case Overdue():
                if peer == core.ledger.gateway:
                    core.overdue(message.job)
            case AllCut():
                if peer == core.ledger.gateway:
                    core.ledger.pictures.all_cut(message.picture)
            case WorkerReady():
                self._worker_ready(peer, message)
            case Hello():
                self._greet(peer)
            case GatewayUp():
                self._gateway_up(peer, message.epoch)
            case StatusQuery():
                self._router.send(peer, StatusReply(message.query, status(core, self._report)))
            case TraceQuery():
                core.leasing.recording = Recording(peer, message.query, now + message.seconds)
            case LoadModel() | LoadChain() | ReloadModel() | UnloadModel() | StopServer():
                self._router.send(core.supervisor, message)
            case _:
                self._obey(message, now)

    def _obey(self, message: SupervisorToDispatcher, now: float) -> None:
        match message:
            case WorkerDown():
                self._worker_down(message.worker.encode(), now)
            case PrepareModel():
                self._prepare_model(message.plan)
            case OpenModel():
                self._open_model(message.plan)
            case CloseModel():
                self._core.close_model(message)
            case ModelFailed():
                self._core.model_failed(message)
            case ProcessReport():
                self._report = message
            case Expect():
                self._expect(message, now)
            case Ping():
                self._alive()
            case Drain():
                self._core.draining = True
            case StopWorkers():
                self._stop(message.until)
            case _:
                assert_never(message)

    def _timeout(self) -> float | None:
        now = time.monotonic()
        timer = self._core.next_timer()
        recording = self._core.leasing.recording
        if recording is not None:
            timer = recording.until if timer is None else min(timer, recording.until)
        self._due = math.inf if timer is None else timer
        if self._strangers and now < self._reach_until:  # they are connecting: no event will tell
            return _RETRY if timer is None else min(timer - now, _RETRY)
        return None if timer is None else timer - now

    def close(self) -> None:
        """Close the socket once what was sent has left."""
        self._router.close(self._until)
        self._context.term()

    def _greet(self, peer: bytes) -> None:
        """Ask a new peer to announce itself."""
        if peer != self._core.supervisor and peer not in self._greeted:
            self._strangers.add(peer)

    def _greet_strangers(self) -> None:
        """Workers at once; the gateway only when nobody works on an earlier dispatcher's leases any more."""
        for peer in list(self._strangers):
            if peer.startswith(b"gateway") and (not self._introduced or self._core.awaited):
                continue
            if self._router.reach(peer, Register(self._epoch)):
                self._strangers.discard(peer)
                self._greeted.add(peer)

    def _expect(self, message: Expect, now: float) -> None:
        self._core.expect(message.workers, now)
        self._introduced = True
        self._strangers |= self._core.awaited
        self._strangers |= {worker.encode() for worker in message.starting}
        if message.gateway:
            self._strangers.add(message.gateway.encode())
        self._strangers -= self._greeted
        self._reach_until = now + _REACH

    def _worker_ready(self, peer: bytes, message: WorkerReady) -> None:
        self._core.worker_ready(peer, message)
        if message.stage != "infer":
            for served in self._core.leasing.models.values():
                self._router.send(peer, ModelAdded(served.plan))

    def _prepare_model(self, plan: ModelPlan) -> None:
        if plan.key not in self._core.leasing.models:
            self._core.prepare_model(plan)
            for worker in self._core.cpu_workers():
                self._router.send(worker.name, ModelAdded(plan))

    def _open_model(self, plan: ModelPlan) -> None:
        self._prepare_model(plan)
        self._core.open_model(plan)
        self._router.send(self._core.supervisor, ModelServed(plan.key))

    def _recorded(self, recording: Recording, begun: float) -> None:
        """A turn of the loop is over; at the end of its time the recording goes to who asked for it."""
        now = time.monotonic()
        recording.turned(begun, now)
        if now >= recording.until:
            self._core.leasing.recording = None
            work, turns = (Raw(encode(spans)) for spans in (recording.work, recording.turns))
            self._router.send(recording.peer, Traced(recording.query, work, turns, recording.complete))
            self._router.flush()

    def _gateway_up(self, peer: bytes, epoch: int) -> None:
        if epoch == self._epoch and peer != self._core.ledger.gateway:
            self._core.ledger.gateway = peer
            self._core.gateway_restarted()

    def _worker_down(self, worker: bytes, now: float) -> None:
        self._strangers.discard(worker)
        self._greeted.discard(worker)
        self._core.worker_down(worker, now)

    def _stop(self, until: float) -> None:
        for worker in self._core.workers():
            self._router.send(worker.name, StopWorker(until))
        self._until = until
        self._running = False


def main(child: Child, encoded: bytes) -> None:
    """Entry point of the process."""
    options = decode(encoded, type=DispatcherOptions)
    process = DispatcherProcess(options, load_by_name(options.policy), lambda: child.tell(Alive()))
    child.tell(Started())
    process.run_forever()
    process.close()
