"""The house: everything of one run, from its first segment to its last process."""

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
from parallel_infer.supervisor.child_specs import ChildSpecs, Place, Role
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
    """Starts, watches, restarts and stops the processes of one run; its models are the lineup's."""

    def __init__(self, config: ServerConfig, plan: Plan, run: Run, manager: ServiceManager, wake: int) -> None:
        self._config = config
        self._plan = plan
        self.state = State.STARTING
        self.addresses: list[str] = []
        self.failure = ""
        self.outcome: Left | None = None  # how the stop went, as the gateway told
        self.uncounted = False  # a gateway died meanwhile, and nobody knows what it owed
        self._roster = ChildSpecs(config, run.folder, run.mark.segment_name("lent"))
        self._ingress: list[Ring] = []
        self._watch = Watch()
        self._children = Children(self._watch, config.start_timeout_ms / 1000)
        self._places = self._children.places
        self._deadline = time.monotonic() + config.start_timeout_ms / 1000
        self._until = 0.0  # what is owed is waited for, once the server stops
        self._manager = manager
        self._heart = Liveness(config.silence_limit_ms / 1000)
        self._door_opened = False
        self._door_waits = False
        self._context = new_context()
        self._link: Link[ToSupervisor] = Link(self._context, self._roster.dispatcher, "supervisor", ToSupervisor)
        self._gateway = AnswerLink(self._context, self._roster.answers)
        self.lineup = ModelRegistry(config, plan, run, self._roster, self._link, self._gateway, self)
        self._watch.add(self._link.socket)
        self._watch.add(wake)

    @property
    def names(self) -> list[str]:
        """The names of the models that are served."""
        return self.lineup.names

    @property
    def confinements(self) -> set[str]:
        """What keeps decode workers from everything but their work, as they say."""
        processes = (place.process for place in self._places.values() if place.process is not None)
        return {process.started.confined for process in processes} - {""}

    # --- start -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Create every segment, then start every process. Raises ConfigError when memory is short."""
        for spec in self._plan.ingress:
            self._ingress.append(Ring.create(spec))
        self.lineup.start()
        for place in self._roster.everybody(self._plan):
            self.hire(place)

    def hire(self, place: Place) -> None:
        """Fill a new place, and keep it filled."""
        self._children.hire(place)

    def dismiss(self, place: Place) -> None:
        """End a place and its process."""
        self._children.dismiss(place)

    def listen(self, descriptor: int) -> None:
        """Let the lineup hear of what comes on a descriptor."""
        self._watch.add(descriptor)

    def ignore(self, descriptor: int) -> None:
        """No more."""
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
            if concerned := self._children.concerned(descriptor):
                self._on_child(*concerned, descriptor)
        self.lineup.heard(there)

    def _timeout(self) -> float | None:
        times = [place.start_at for place in self._places.values() if place.start_at is not None]
        times += self.lineup.deadlines
        if self.state in (State.STARTING, State.DRAINING):
            times.append(self._deadline)
        if self.state != State.STARTING:
            times += [late for place in self._places.values() if (late := place.late_at) is not None]
            times += [self._heart.due, self._manager.due]
        return min(times) - time.monotonic() if times else None

    def _on_time(self, now: float) -> None:
        for place in self._places.values():
            if place.start_at is not None and place.start_at <= now:
                self._children.start(place)
        if self.state != State.STARTING:
            self._children.end_late(now)
        if self.state != State.STARTING and now >= self._heart.due:
            self._beat(now)
        if now >= self._manager.due:
            self._manager.beat(now, self.state != State.SERVING or self._heart.fine(self._places.values()))
        self.lineup.on_time(now)
        if now >= self._deadline and self.state == State.STARTING:
            missing = ", ".join(place.name for place in self._places.values() if not place.up)
            limit = f"{self._config.start_timeout_ms / 1000:.0f} s (option start_timeout_ms)"
            self._fail(f"not ready after {limit}: nothing was heard from {missing}")
        if now >= self._deadline and self.state == State.DRAINING:
            self.state = State.STOPPING  # the gateway hangs: it should have given up by itself

    def _take(self, message: ToSupervisor) -> None:
        if isinstance(message, KillWorker):
            self._children.kill(message.worker, message.why)
        elif isinstance(message, ModelServed):
            self.lineup.opened(message.model)
            if self._door_waits and self.lineup.all_opened:
                self._open_door()
        elif isinstance(message, ModelClosed):
            self.lineup.closed(message.model)
        elif isinstance(message, Manage):
            self.lineup.manage(message)

    def _introduce(self) -> None:
        """Tell a dispatcher that has just started what is served and who lives."""
        self.lineup.introduce()
        self._link.send(self._children.introduction())
        self.report()
        if self.state == State.DRAINING:
            self._link.send(Drain())

    def report(self) -> None:
        """Tell the dispatcher, who answers for the status, how processes and models are."""
        self._link.send(ProcessReport(self._children.processes(), self.lineup.reports()))

    # --- children ----------------------------------------------------------------------------------------------------

    def _beat(self, now: float) -> None:
        """Ask the dispatcher and the gateway for a sign of life, and end what has given none for too long."""
        for place, stuck in self._heart.beat(now, self._places.values()):
            if stuck and place.process is not None:
                log.warning("%s is killed: it hangs (option silence_limit_ms)", place.name)
                place.process.kill()
            elif place.role == Role.DISPATCHER:
                self._link.send(Ping())
            else:
                self._gateway.send(Ping())

    def _on_child(self, place: Place, process: Process, descriptor: int) -> None:
        self._hear(place, process)  # first its last words: they may say why it died
        if descriptor != process.sentinel:
            return
        code = self._children.bury(process)
        if place.process is process:
            self._on_death(place, process.name, code)

    def _hear(self, place: Place, process: Process) -> None:
        for word in self._children.words(process):
            match word:
                case Started():
                    process.started = word
                    self._on_started(place)
                case StartFailed():
                    self._on_start_failed(place, word.text)
                case Listening():
                    self._on_listening(place, word.addresses)
                case Alive():
                    self._heart.answered(process.name)
                case Drained():
                    place.leave()
                case Left():
                    self.outcome = word
                case Probed():
                    pass  # probes are heard by the lineup
                case _:
                    assert_never(word)

    def _on_listening(self, place: Place, addresses: tuple[str, ...]) -> None:
        self.addresses = list(addresses)
        # A successor takes the same, also where a port was left open.
        place.options = msgspec.structs.replace(place.options, bind=addresses)
        if self.state == State.STARTING:
            self.state = State.SERVING
        self.report()

    def _on_started(self, place: Place) -> None:
        place.up = True
        if place.role == Role.DISPATCHER:
            self._introduce()
        if place.role == Role.GATEWAY and self._door_opened:
            self._open_door()
        elif not self._door_opened and all(other.up for other in self._places.values()):
            self._door_opened = True
            self.lineup.serve_all()
            self._door_waits = True  # for the dispatcher to take jobs of every model
            if self.lineup.all_opened:
                self._open_door()
        elif self._door_opened:
            self.lineup.instance_up(place)
        self.report()

    def _on_start_failed(self, place: Place, text: str) -> None:
        if self.state == State.STARTING:
            self._fail(f"{place.name} cannot start: {text}")
            return
        if not self.lineup.instance_failed(place, text.partition(": ")[2]):
            place.last_word = text

    def _open_door(self) -> None:
        self._door_waits = False
        self.lineup.open_doors()
        self._gateway.send(OpenDoor())
        if self.state == State.DRAINING:
            self._gateway.send(CloseDoor(self._until))

    def _on_death(self, place: Place, incarnation: str, code: int | None) -> None:
        if self.state == State.STARTING:
            self._fail(f"{place.name} ended before it was ready (exit code {code})")
            return
        if place.leaving and self.state == State.DRAINING:
            self.state = State.STOPPING
        elif place.role == Role.GATEWAY and self.state == State.DRAINING:
            self.uncounted = True
        if self.state in (State.STOPPING, State.FAILED):
            place.process = None
            return
        if self.lineup.instance_failed(place, f"its process ended (exit code {code})"):
            return
        log.warning("%s died (%s); starting it again", place.name, place.last_word or f"exit code {code}")
        if place.role == Role.WORKER:
            self._link.send(WorkerDown(incarnation))
        if not place.died(time.monotonic(), self._config.restart_budget):
            log.error(
                "%s died more than %s times in a minute (option restart_budget); trying again later",
                place.name,
                self._config.restart_budget,
            )
            self.lineup.exhausted(place)
        self.report()

    def _fail(self, text: str) -> None:
        self.failure = self.failure or text
        self.state = State.FAILED

    def reload(self, models: dict[str, ModelConfig]) -> Reload:
        """Begin to make the lineup that of `models`; `run_until` goes on with it."""
        reload = self.lineup.reload(models)
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
        self.lineup.end_probes()
        self._children.end(until)
        self._link.close()
        self._gateway.close()
        self._context.destroy(linger=0)
        for ring in self._ingress:
            ring.close()
            ring.unlink()
        self.lineup.remove_rings()
