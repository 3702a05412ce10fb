"""Everything of one run, from its first segment to its last process."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from enum import Enum
from typing import Any, assert_never

import msgspec

from parallel_infer.config.schema import ModelConfig, ServerConfig
from parallel_infer.ipc.channel import AnswerLink, Link, Watch, new_context
from parallel_infer.ipc.messages import (
    Alive,
    CloseDoor,
    Drain,
    Drained,
    KillWorker,
    Left,
    Listening,
    Manage,
    ModelClosed,
    ModelServed,
    OpenDoor,
    Ping,
    Probed,
    ProcessReport,
    Started,
    StartFailed,
    StopWorkers,
    ToSupervisor,
    WorkerDown,
)
from parallel_infer.process.spawn import Process
from parallel_infer.shm.ring import Ring
from parallel_infer.supervisor.child_specs import ChildSlot, ChildSpecs, Role
from parallel_infer.supervisor.children import Children
from parallel_infer.supervisor.liveness import Liveness
from parallel_infer.supervisor.model_registry import ModelRegistry
from parallel_infer.supervisor.plan import Plan
from parallel_infer.supervisor.reload import Reload
from parallel_infer.supervisor.run import Run
from parallel_infer.supervisor.service_manager import ServiceManager

log = logging.getLogger(__name__)
_LAST_WORDS = 3.0  # seconds a child has to leave on its own, at least
_ORDER = 10.0  # ... at most, where drain_timeout_ms leaves so much
_LAST_REPLIES = 2.0  # seconds the gateway has after its time to tell those that it gave up, and to go


class State(Enum):
    """Where the run is."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    STOPPING = "stopping"
    FAILED = "failed"


class ProcessSupervisor:
    """Starts, watches, restarts and stops the processes of one run; its models are the registry's."""

    def __init__(self, config: ServerConfig, plan: Plan, run: Run, manager: ServiceManager, wake: int) -> None:
        self._config = config
        self._plan = plan
        self.state = State.STARTING
        self._listening: dict[str, tuple[str, ...]] = {}  # addresses, by who listens there
        self.failure = ""
        self.outcome: Left | None = None  # how the stop went, as the gateway told
        self.uncounted = False  # a gateway died meanwhile, and nobody knows what it owed
        self._specs = ChildSpecs(config, run.folder, run.mark.segment_name("lent"))
        self._ingress: list[Ring] = []
        self._watch = Watch()
        self._children = Children(self._watch, config.start_timeout_ms / 1000)
        self._slots = self._children.slots
        self._deadline = time.monotonic() + config.start_timeout_ms / 1000
        self._until = 0.0  # until when answers are waited for once the server stops
        self._manager = manager
        self._liveness = Liveness(config.silence_limit_ms / 1000)
        self._door_opened = False
        self._door_waits = False
        self._context = new_context()
        self._link: Link[ToSupervisor] = Link(self._context, self._specs.dispatcher, "supervisor", ToSupervisor)
        self._gateway = AnswerLink(self._context, self._specs.answers)
        self.registry = ModelRegistry(config, plan, run, self._specs, self._link, self._gateway, self)
        self._watch.add(self._link.socket)
        self._watch.add(wake)

    @property
    def addresses(self) -> list[str]:
        """Where clients are let in; those of the gateway first."""
        return [address for addresses in self._listening.values() for address in addresses]

    @property
    def names(self) -> list[str]:
        """The names of the models that are served."""
        return self.registry.names

    @property
    def confinements(self) -> set[str]:
        """What keeps decode workers from everything but their work, as they say."""
        processes = (slot.process for slot in self._slots.values() if slot.process is not None)
        return {process.started.confined for process in processes} - {""}

    # --- start -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Create every segment, then start every process. Raises ConfigError when memory is short."""
        for spec in self._plan.ingress:
            self._ingress.append(Ring.create(spec))
        self.registry.start()
        for slot in self._specs.everybody(self._plan):
            self.start_child(slot)

    def start_child(self, slot: ChildSlot) -> None:
        """Start a child, and start it again whenever it dies."""
        self._children.start_child(slot)

    def stop_child(self, slot: ChildSlot) -> None:
        """Kill a child, and do not start it again."""
        self._children.stop_child(slot)

    def watch(self, descriptor: int) -> None:
        """Call the registry when a descriptor becomes readable."""
        self._watch.add(descriptor)

    def unwatch(self, descriptor: int) -> None:
        """Watch a descriptor no longer."""
        self._watch.remove(descriptor)

    # --- the loop ----------------------------------------------------------------------------------------------------

    def run_until(self, done: Callable[[], bool]) -> None:
        """Take in what happens until `done`."""
        while not done():
            timeout = self._timeout()
            self._take_in(self._watch.wait(timeout))
            now = time.monotonic()
            if timeout is not None:  # what has come by now counts before what is late by now
                self._take_in(self._watch.wait(0))
            self._on_time(now)
            self._link.flush()
            self._gateway.flush()

    def _take_in(self, there: set[Any]) -> None:
        if self._link.socket in there:
            for message in self._link.drain():
                self._take(message)
        for descriptor in there:
            if owner_of := self._children.owner_of(descriptor):
                self._on_child(*owner_of, descriptor)
        self.registry.handle_readable(there)

    def _timeout(self) -> float | None:
        times = [slot.start_at for slot in self._slots.values() if slot.start_at is not None]
        times += self.registry.deadlines
        if self.state in (State.STARTING, State.DRAINING):
            times.append(self._deadline)
        if self.state != State.STARTING:
            times += [late for slot in self._slots.values() if (late := slot.late_at) is not None]
            times += [self._liveness.due, self._manager.due]
        return min(times) - time.monotonic() if times else None

    def _on_time(self, now: float) -> None:
        for slot in self._slots.values():
            if slot.start_at is not None and slot.start_at <= now:
                self._children.start(slot)
        if self.state != State.STARTING:
            self._children.end_late(now)
        if self.state != State.STARTING and now >= self._liveness.due:
            self._beat(now)
        if now >= self._manager.due:
            self._manager.beat(now, self.state != State.SERVING or self._liveness.fine(self._slots.values()))
        self.registry.on_time(now)
        if now >= self._deadline and self.state == State.STARTING:
            missing = ", ".join(slot.name for slot in self._slots.values() if not slot.up)
            limit = f"{self._config.start_timeout_ms / 1000:.0f} s (option start_timeout_ms)"
            self._fail(f"not ready after {limit}: nothing was heard from {missing}")
        if now >= self._deadline and self.state == State.DRAINING:
            self.state = State.STOPPING  # the gateway hangs: it should have given up by itself

    def _take(self, message: ToSupervisor) -> None:
        if isinstance(message, KillWorker):
            self._children.kill(message.worker, message.why)
        elif isinstance(message, ModelServed):
            self.registry.opened(message.model)
            if self._door_waits and self.registry.all_opened:
                self._open_door()
        elif isinstance(message, ModelClosed):
            self.registry.closed(message.model)
        elif isinstance(message, Manage):
            self.registry.manage(message)

    def _introduce(self) -> None:
        """Tell a dispatcher that has just started what is served and who lives."""
        self.registry.introduce()
        self._link.send(self._children.introduction())
        self.report()
        if self.state == State.DRAINING:
            self._link.send(Drain())

    def report(self) -> None:
        """Tell the dispatcher, who answers for the status, how processes and models are."""
        self._link.send(ProcessReport(self._children.processes(), self.registry.reports()))

    # --- children ----------------------------------------------------------------------------------------------------

    def _beat(self, now: float) -> None:
        """Ask the dispatcher and the gateway for a sign of life, and end what has given none for too long."""
        for slot, stuck in self._liveness.beat(now, self._slots.values()):
            if stuck and slot.process is not None:
                log.warning("%s is killed: it hangs (option silence_limit_ms)", slot.name)
                slot.process.kill()
            elif slot.role == Role.DISPATCHER:
                self._link.send(Ping())
            else:
                self._gateway.send(Ping())

    def _on_child(self, slot: ChildSlot, process: Process, descriptor: int) -> None:
        died = descriptor == process.sentinel
        self._handle_messages(slot, process)  # first its last words: they may say why it died
        if not died or self._children.owner_of(descriptor) is None:  # what it said may have been the end of it
            return
        code = self._children.reap(process)
        if slot.process is process:
            self._on_death(slot, process.name, code)

    def _handle_messages(self, slot: ChildSlot, process: Process) -> None:
        for message in self._children.messages(process):
            match message:
                case Started():
                    process.started = message
                    self._on_started(slot)
                case StartFailed():
                    self._on_start_failed(slot, message.text)
                case Listening():
                    self._on_listening(slot, message.addresses)
                case Alive():
                    self._liveness.answered(process.name)
                case Drained():
                    slot.leave()
                case Left():
                    self.outcome = message
                case Probed():
                    pass  # the registry reads what probes say
                case _:
                    assert_never(message)

    def _on_listening(self, slot: ChildSlot, addresses: tuple[str, ...]) -> None:
        """The gateway lets clients in, or a door does; doors are opened once there is a gateway to be clients of."""
        self._listening[slot.name] = addresses
        if slot.role == Role.GATEWAY:
            # A successor takes the same, also where a port was left open.
            slot.options = msgspec.structs.replace(slot.options, bind=addresses)
            for door in self._specs.doors():
                if door.name not in self._slots:
                    self.start_child(door)
        if self.state == State.STARTING and all(
            other.name in self._listening for other in self._slots.values() if other.role == Role.DOOR
        ):
            self.state = State.SERVING
        self.report()

    def _on_started(self, slot: ChildSlot) -> None:
        slot.up = True
        if slot.role == Role.DISPATCHER:
            self._introduce()
        if slot.role == Role.GATEWAY and self._door_opened:
            self._open_door()
        elif not self._door_opened and all(other.up for other in self._slots.values()):
            self._door_opened = True
            self.registry.serve_all()
            self._door_waits = True  # for the dispatcher to take jobs of every model
            if self.registry.all_opened:
                self._open_door()
        elif self._door_opened:
            self.registry.instance_up(slot)
        self.report()

    def _on_start_failed(self, slot: ChildSlot, text: str) -> None:
        if self.state == State.STARTING:
            self._fail(f"{slot.name} cannot start: {text}")
            return
        if not self.registry.instance_failed(slot, text):
            slot.last_error = text

    def _open_door(self) -> None:
        self._door_waits = False
        self.registry.open_doors()
        self._gateway.send(OpenDoor())
        if self.state == State.DRAINING:
            self._gateway.send(CloseDoor(self._until))

    def _on_death(self, slot: ChildSlot, incarnation: str, code: int | None) -> None:
        if self.state == State.STARTING:
            self._fail(f"{slot.name} ended before it was ready (exit code {code})")
            return
        if slot.leaving and self.state == State.DRAINING:
            self.state = State.STOPPING
        elif slot.role == Role.GATEWAY and self.state == State.DRAINING:
            self.uncounted = True
        if self.state in (State.STOPPING, State.FAILED):
            slot.process = None
            return
        if self.registry.instance_failed(slot, f"its process ended (exit code {code})"):
            return
        log.warning("%s died (%s); starting it again", slot.name, slot.last_error or f"exit code {code}")
        if slot.role == Role.WORKER:
            self._link.send(WorkerDown(incarnation))
        if not slot.died(time.monotonic(), self._config.restart_budget):
            log.error(
                "%s died more than %s times in a minute (option restart_budget); trying again later",
                slot.name,
                self._config.restart_budget,
            )
            self.registry.exhausted(slot)
        self.report()

    def _fail(self, text: str) -> None:
        self.failure = self.failure or text
        self.state = State.FAILED

    def reload(self, models: dict[str, ModelConfig]) -> Reload:
        """Begin to make the registry that of `models`; `run_until` goes on with it."""
        reload = self.registry.reload(models)
        self._link.flush()
        self._gateway.flush()
        return reload

    # --- stop --------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Take no more jobs; stop when the last one is answered and every client has its replies."""
        if self.state == State.SERVING:
            self.state = State.DRAINING
            self._close_door(time.monotonic() + self._config.drain_timeout_ms / 1000)
        elif self.state == State.STARTING:
            self.state = State.STOPPING

    def hasten(self) -> None:
        """Wait no longer: what is not answered by now gets an error."""
        self._close_door(time.monotonic())

    def _close_door(self, until: float) -> None:
        self._until = until
        self._deadline = until + _LAST_REPLIES
        self._gateway.send(CloseDoor(until))
        self._link.send(Drain())
        self._gateway.flush()
        self._link.flush()

    def stop(self) -> None:
        """End every process and remove every segment; whatever happened before."""
        now = time.monotonic()
        # Those that are left owe nothing to anybody, but may have things to put in order.
        until = now + 0.2 if self.state == State.FAILED else max(now + _LAST_WORDS, min(self._until, now + _ORDER))
        self._link.send(StopWorkers(until))
        self._gateway.send(CloseDoor(now))
        self._link.flush()
        self._gateway.flush()
        self.registry.end_probes()
        self._children.end(until)
        self._link.close()
        self._gateway.close()
        self._context.destroy(linger=0)
        for ring in self._ingress:
            ring.close()
            ring.unlink()
        self.registry.remove_rings()
