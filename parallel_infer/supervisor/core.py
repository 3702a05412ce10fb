"""What the supervisor decides: who is started, restarted and killed, when the server serves, and how it stops.

No sockets, no processes and no clock of its own: `supervisor.processes` brings what happens, and does what is told.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from enum import Enum
from typing import assert_never

import msgspec

from parallel_infer.config.schema import ModelConfig, ServerConfig
from parallel_infer.ipc.messages import (
    Alive,
    CloseDoor,
    DoorActivity,
    Drain,
    Drained,
    FromChild,
    KillWorker,
    Left,
    Listening,
    LoadChain,
    LoadModel,
    ModelClosed,
    ModelServed,
    OpenDoor,
    Ping,
    Probed,
    ProcessReport,
    ReloadModel,
    Started,
    StartFailed,
    StopServer,
    StopWorkers,
    ToSupervisor,
    UnloadModel,
    WorkerDown,
)
from parallel_infer.supervisor.child_slot import ChildSlot, Role
from parallel_infer.supervisor.child_specs import ChildSpecs
from parallel_infer.supervisor.children import Children
from parallel_infer.supervisor.door_states import DoorStates, keep_ports
from parallel_infer.supervisor.liveness import Liveness
from parallel_infer.supervisor.model_registry import ModelRegistry
from parallel_infer.supervisor.outside import Found, LoadRequest, Outside
from parallel_infer.supervisor.plan import Plan
from parallel_infer.supervisor.reload import Reload

log = logging.getLogger(__name__)
_LAST_WORDS = 3.0  # seconds a child has to leave on its own, at least
_ORDER = 10.0  # ... at most, where drain_timeout_ms leaves so much
_FAILED = 0.2  # ... where the server could not start: nothing has happened yet that could be put in order
_LAST_REPLIES = 2.0  # seconds the gateway has after its time to tell those that it gave up, and to go


class State(Enum):
    """Where the run is."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    STOPPING = "stopping"
    FAILED = "failed"


class Core:
    """The processes of one run and what becomes of them; its models are the registry's."""

    def __init__(
        self,
        config: ServerConfig,
        plan: Plan,
        specs: ChildSpecs,
        outside: Outside,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = State.STARTING
        self.failure = ""
        self.outcome: Left | None = None  # how the stop went, as the gateway told
        self.uncounted = False  # a gateway died meanwhile, and nobody knows what it owed
        self._config = config
        self._plan = plan
        self._specs = specs
        self._doors = DoorStates(specs.doors())
        self._dispatcher = outside.dispatcher
        self._gateway = outside.gateway
        self._resources = outside.resources
        self._clock = clock
        self._children = Children(outside.processes, config.start_timeout_ms / 1000)
        self._slots = self._children.slots
        self._liveness = Liveness(config.silence_limit_ms / 1000)
        self.registry = ModelRegistry(config, plan, specs, self._children, outside, clock)
        self._listening: dict[str, tuple[str, ...]] = {}  # addresses, by who listens there
        self._deadline = clock() + config.start_timeout_ms / 1000
        self._until = 0.0  # until when answers are waited for once the server stops
        self._door_opened = False
        self._door_waits = False

    @property
    def addresses(self) -> list[str]:
        """Where clients are let in; those of the gateway first."""
        return [address for addresses in self._listening.values() for address in addresses]

    @property
    def names(self) -> list[str]:
        """The names of the models and chains that are served."""
        return [*self.registry.specs, *self.registry.chains.names]

    @property
    def confinements(self) -> set[str]:
        """What keeps decode workers from everything but their work, as they say."""
        return {slot.started.confined for slot in self._slots.values()} - {""}

    @property
    def is_fine(self) -> bool:
        """Whether there is life to tell a service manager of."""
        return self.state != State.SERVING or self._liveness.fine(self._slots.values())

    def start(self) -> None:
        """Have every process started. Raises ConfigError when memory is short."""
        self.registry.start()
        for slot in self._specs.everybody(self._plan):
            self._children.add(slot, self._clock())

    # --- time --------------------------------------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """When `on_timer` wants to be called, whatever happens until then."""
        times = self._children.restarts + self.registry.deadlines
        if self.state in (State.STARTING, State.DRAINING):
            times.append(self._deadline)
        if self.state != State.STARTING:
            times += [*self._children.limits, self._liveness.due]
        return min(times, default=None)

    def on_timer(self, now: float) -> None:
        """Do what is due; call it after everything that has come by `now` was taken in."""
        self._children.start_due(now)
        if self.state != State.STARTING:
            self._children.kill_late(now)
        if self.state != State.STARTING and now >= self._liveness.due:
            self._beat(now)
        if self.registry.on_timer(now):
            self._report()
        if now >= self._deadline and self.state == State.STARTING:
            limit = f"{self._config.start_timeout_ms / 1000:.0f} s (option start_timeout_ms)"
            self._fail(f"not ready after {limit}: nothing was heard from {', '.join(self._children.missing)}")
        if now >= self._deadline and self.state == State.DRAINING:
            self.state = State.STOPPING  # the gateway hangs: it should have given up by itself

    def _beat(self, now: float) -> None:
        """Ask dispatcher, gateway and doors for a sign of life, and end what has given none for too long."""
        for slot, stuck in self._liveness.beat(now, self._slots.values()):
            if stuck:
                self._children.kill(slot, "hangs (option silence_limit_ms)")
            elif slot.role == Role.DISPATCHER:
                self._dispatcher.send(Ping())
            elif slot.role == Role.GATEWAY:
                self._gateway.send(Ping())
            else:
                self._children.ask_for_life(slot)

    # --- the dispatcher ----------------------------------------------------------------------------------------------

    def take(self, message: ToSupervisor) -> None:
        """A message of the dispatcher, or of a client by way of it."""
        match message:
            case KillWorker():
                self._children.kill_process(message.worker, message.why)
            case ModelServed():
                self.registry.opened(message.model)
                if self._door_waits and self.registry.all_opened:
                    self._open_door()
            case ModelClosed():
                self.registry.closed(message.model)
                self._report()
            case LoadModel() | LoadChain() | ReloadModel() | UnloadModel():
                self.registry.manage(message)
            case StopServer():
                self.registry.manage(message)
                self.drain()
            case _:
                assert_never(message)

    def probed(self, request: LoadRequest, found: Found) -> None:
        """What a process has found out that was to look into a model file."""
        self.registry.probed(request, found)
        self._report()

    def _introduce(self) -> None:
        """Tell a dispatcher that has just started what is served and who lives."""
        self.registry.introduce()
        self._dispatcher.send(self._children.introduction())
        self._report()
        if self.state == State.DRAINING:
            self._dispatcher.send(Drain())

    def _report(self) -> None:
        """Tell the dispatcher, who answers for the status, how processes and models are."""
        doors = self._doors.states(self._listening)
        self._dispatcher.send(ProcessReport(self._children.states(), self.registry.reports(), doors))

    # --- children ----------------------------------------------------------------------------------------------------

    def said(self, slot: ChildSlot, message: FromChild) -> None:
        """A message of the process that fills a slot."""
        match message:
            case Started():
                slot.started = message
                self._on_started(slot)
            case StartFailed():
                self._on_start_failed(slot, message.text)
            case Listening():
                self._on_listening(slot, message.addresses)
            case DoorActivity():
                self._doors.note(slot, message)
                self._report()
            case Alive():
                self._liveness.answered(slot.running)
            case Drained():
                slot.leave()
            case Left():
                self.outcome = message
            case Probed():
                pass  # of a probe, which fills no slot
            case _:
                assert_never(message)

    def _on_started(self, slot: ChildSlot) -> None:
        slot.up = True
        if slot.role == Role.DISPATCHER:
            self._introduce()
        if slot.role == Role.GATEWAY and self._door_opened:
            self._open_door()
        elif not self._door_opened and self._children.all_up:
            self._door_opened = True
            self.registry.serve_all()
            self._door_waits = True  # for the dispatcher to take jobs of every model
            if self.registry.all_opened:
                self._open_door()
        elif self._door_opened:
            self.registry.instance_up(slot)
        self._report()

    def _on_start_failed(self, slot: ChildSlot, text: str) -> None:
        if self.state == State.STARTING:
            self._fail(f"{slot.name} cannot start: {text}")
            return
        if not self.registry.instance_failed(slot, text):
            slot.last_error = text

    def _on_listening(self, slot: ChildSlot, addresses: tuple[str, ...]) -> None:
        """The gateway lets clients in, or a door does; doors are opened once there is a gateway to be clients of."""
        self._listening[slot.name] = addresses
        if slot.role == Role.DOOR:
            keep_ports(slot, addresses)
        if slot.role == Role.GATEWAY:
            # A successor takes the same, also where a port was left open.
            slot.options = msgspec.structs.replace(slot.options, bind=addresses)
            for name, door in self._doors.slots.items():
                if name not in self._slots:
                    self._children.add(door, self._clock())
        if self.state == State.STARTING and all(name in self._listening for name in self._doors.slots):
            self.state = State.SERVING
        self._report()

    def _open_door(self) -> None:
        self._door_waits = False
        self.registry.open_doors()
        self._gateway.send(OpenDoor())
        if self.state == State.DRAINING:
            self._gateway.send(CloseDoor(self._until))

    def ended(self, slot: ChildSlot, code: int | None) -> None:
        """The process that fills a slot has ended and is reaped; all that it said was told before."""
        incarnation = slot.running
        slot.empty()
        if self.state == State.STARTING:
            self._fail(f"{slot.name} ended before it was ready (exit code {code})")
            return
        if slot.leaving and self.state == State.DRAINING:
            self.state = State.STOPPING
        elif slot.role == Role.GATEWAY and self.state == State.DRAINING:
            self.uncounted = True
        if slot.role == Role.GATEWAY:
            self._resources.remove_lent(slot.incarnation)
        if self.state in (State.STOPPING, State.FAILED):
            return
        if self.registry.instance_failed(slot, f"its process ended (exit code {code})"):
            return
        log.warning("%s died (%s); starting it again", slot.name, slot.last_error or f"exit code {code}")
        if slot.role == Role.WORKER:
            self._dispatcher.send(WorkerDown(incarnation))
        if not slot.died(self._clock(), self._config.restart_budget):
            log.error(
                "%s died more than %s times in a minute (option restart_budget); trying again later",
                slot.name,
                self._config.restart_budget,
            )
            self.registry.exhausted(slot)
        self._report()

    def _fail(self, text: str) -> None:
        self.failure = self.failure or text
        self.state = State.FAILED

    # --- what the user asks for --------------------------------------------------------------------------------------

    def reload(self, models: dict[str, ModelConfig]) -> Reload:
        """Begin to make the served models those of `models`; what comes of it is in the answer, bit by bit."""
        return self.registry.reload(models)

    def drain(self) -> None:
        """Take no more jobs; stop when the last one is answered and every client has its replies."""
        if self.state == State.SERVING or (self.state == State.STARTING and self.addresses):
            self.state = State.DRAINING  # clients of the gateway are served while other doors still start
            self._close_door(self._clock() + self._config.drain_timeout_ms / 1000)
        elif self.state == State.STARTING:
            self.state = State.STOPPING

    def hasten(self) -> None:
        """Wait no longer: what is not answered by now gets an error."""
        self._close_door(self._clock())

    def stop(self) -> float:
        """Have everybody go, whatever happened before; until when those may take that put things in order."""
        now = self._clock()
        # Those that are left owe nothing to anybody, but may have things to put in order.
        longest = max(now + _LAST_WORDS, min(self._until, now + _ORDER))
        until = now + _FAILED if self.state == State.FAILED else longest
        self._dispatcher.send(StopWorkers(until))
        self._gateway.send(CloseDoor(now))
        self._children.end()
        return until

    def _close_door(self, until: float) -> None:
        self._until = until
        self._deadline = until + _LAST_REPLIES
        self._gateway.send(CloseDoor(until))
        self._dispatcher.send(Drain())
