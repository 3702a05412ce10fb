"""The house: everything of one run, from its first segment to its last process."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec

from parallel_infer.channel import AnswerLink, Link, Watch, new_context
from parallel_infer.config import ServerConfig
from parallel_infer.errors import ConfigError
from parallel_infer.messages import (
    CloseDoor,
    Drain,
    Drained,
    Expect,
    KillWorker,
    Manage,
    ModelOpened,
    ModelPlan,
    OpenDoor,
    OpenModel,
    Register,
    Started,
    StopWorkers,
    ToSupervisor,
    WorkerDown,
)
from parallel_infer.plan import Plan, child_options
from parallel_infer.process import Process
from parallel_infer.ring import Ring
from parallel_infer.segment import RunMark
from parallel_infer.supervisor.crew import Place, Role

log = logging.getLogger(__name__)
_STAGES = "stages.pipeline:STAGES"
_LAST_WORDS = 3.0  # seconds a child has to leave on its own


class State(Enum):
    """Where the run is."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    STOPPING = "stopping"
    FAILED = "failed"


class House:
    """Starts, watches, restarts and stops the processes of one run."""

    def __init__(self, config: ServerConfig, plan: Plan, mark: RunMark, folder: Path, wake: int) -> None:
        self._config = config
        self._plan = plan
        self._mark = mark
        self.state = State.STARTING
        self.addresses: list[str] = []
        self.failure = ""
        self.models: dict[str, ModelPlan] = {model.name: model for model in plan.models}
        self._rings: list[Ring] = []
        self._dispatcher = f"ipc://{folder}/dispatcher"
        self._answers = f"ipc://{folder}/answers"
        self._places: dict[str, Place] = {}
        self._watched: dict[int, tuple[Place, Process]] = {}
        self._deadline = time.monotonic() + config.start_timeout_ms / 1000
        self._door_opened = False
        self._context = new_context()
        self._link: Link[ToSupervisor] = Link(self._context, self._dispatcher, "supervisor", ToSupervisor)
        self._gateway = AnswerLink(self._context, self._answers)
        self._watch = Watch()
        self._watch.add(self._link.socket)
        self._watch.add(wake)

    # --- start -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Create every segment, then start every process. Raises ConfigError when memory is short."""
        for spec in self._plan.ingress:
            self._rings.append(Ring.create(spec))
        for model in self._plan.models:
            self._rings += [Ring.create(model.rows), Ring.create(model.outputs)]
        for place in self._crew():
            self._places[place.name] = place
            self._start(place)

    def _crew(self) -> Iterator[Place]:
        """Everybody, those who are needed first in front."""
        config, links = self._config, {"dispatcher": self._dispatcher, "answers": self._answers}
        told = child_options(config)
        yield Place(
            "dispatcher",
            Role.DISPATCHER,
            "parallel_infer.dispatcher.process:main",
            {
                **told,
                "address": self._dispatcher,
                "policy": "stages.pipeline:batching",
                "stage_limit": config.stage_limit_ms / 1000,
            },
        )
        for model in self._plan.models:
            yield from self._instances(model)
        limits = {"max_pixels": config.max_pixels, "formats": list(config.formats)}
        for kind, count in (("postprocess", self._plan.postprocess_workers), ("decode", self._plan.decode_workers)):
            for number in range(count):
                arguments = {**told, **links, "kind": kind, "stage": _stage(kind), "limits": limits}
                yield Place(f"{kind}-{number}", Role.WORKER, "parallel_infer.worker:main", arguments)
        yield Place(
            "gateway",
            Role.GATEWAY,
            "parallel_infer.gateway.process:main",
            {
                **told,
                **links,
                "bind": list(config.bind),
                "ingress": [msgspec.to_builtins(spec) for spec in self._plan.ingress],
                "segments": self._mark.segment_name("lent"),
                "lent_memory": config.lent_memory_mb << 20,
                "max_payload": int(config.max_payload_mb * 2**20),
                "max_message": int(config.max_payload_mb * 2**22) + 2**20,
                "timeout": config.timeout_ms / 1000,
            },
        )

    def _instances(self, model: ModelPlan) -> Iterator[Place]:
        for number in range(model.instances):
            arguments = {
                **child_options(self._config),
                "dispatcher": self._dispatcher,
                "kind": "infer",
                "stage": _stage("infer"),
                "plan": msgspec.to_builtins(model),
            }
            name = f"infer-{model.name}-{number}"
            yield Place(name, Role.WORKER, "parallel_infer.worker:main", arguments, model.name)

    def _start(self, place: Place) -> None:
        process = place.start()
        for descriptor in (process.sentinel, process.connection.fileno()):
            self._watched[descriptor] = place, process
            self._watch.add(descriptor)

    # --- the loop ----------------------------------------------------------------------------------------------------

    def run_until(self, done: Callable[[], bool]) -> None:
        """Take in what happens until `done`."""
        while not done():
            there = self._watch.wait(self._timeout())
            if self._link.socket in there:
                for message in self._link.drain():
                    self._take(message)
            for descriptor in there:
                if descriptor in self._watched:
                    self._on_child(*self._watched[descriptor], descriptor)
            self._on_time(time.monotonic())
            self._link.flush()
            self._gateway.flush()

    def _timeout(self) -> float | None:
        times = [place.start_at for place in self._places.values() if place.start_at is not None]
        if self.state in (State.STARTING, State.DRAINING):
            times.append(self._deadline)
        return min(times) - time.monotonic() if times else None

    def _on_time(self, now: float) -> None:
        for place in self._places.values():
            if place.start_at is not None and place.start_at <= now:
                self._start(place)
        if now >= self._deadline and self.state == State.STARTING:
            missing = ", ".join(place.name for place in self._places.values() if not place.up)
            self._fail(
                f"not ready after {self._config.start_timeout_ms / 1000:.0f} s (option start_timeout_ms): "
                f"nothing was heard from {missing}"
            )
        if now >= self._deadline and self.state == State.DRAINING:
            log.warning("stopping with jobs unanswered (option drain_timeout_ms)")
            self.state = State.STOPPING

    def _take(self, message: ToSupervisor) -> None:
        if isinstance(message, Register):
            for model in self.models.values():
                self._link.send(OpenModel(model))
            alive = [p.process.name for p in self._places.values() if p.role == Role.WORKER and p.up and p.process]
            self._link.send(Expect(tuple(alive)))
            if self.state == State.DRAINING:
                self._link.send(Drain())
        elif isinstance(message, KillWorker):
            self._kill(message)
        elif isinstance(message, Drained) and self.state == State.DRAINING:
            self.state = State.STOPPING
        elif isinstance(message, Manage) and message.verb == "stop":
            self.drain()

    def _kill(self, message: KillWorker) -> None:
        for place in self._places.values():
            if place.process is not None and place.process.name == message.worker:
                log.warning("%s is killed: it %s", place.name, message.why)
                place.process.kill()

    def _on_child(self, place: Place, process: Process, descriptor: int) -> None:
        if descriptor != process.sentinel:
            word = process.heard()
            if word is None:
                self._forget(descriptor)
            elif isinstance(word, Started):
                self._on_started(place, word.facts)
            elif self.state == State.STARTING:
                self._fail(f"{place.name} cannot start: {word.text}")
            return
        process.reap()
        for watched in (process.sentinel, process.connection.fileno()):
            self._forget(watched)
        process.close()
        if place.process is process:
            self._on_death(place, process)

    def _forget(self, descriptor: int) -> None:
        self._watched.pop(descriptor, None)
        self._watch.remove(descriptor)

    def _on_started(self, place: Place, facts: dict[str, Any]) -> None:
        place.up = True
        if place.process is not None:
            place.process.facts.update(facts)
        if place.role == Role.GATEWAY and "addresses" in facts:
            self.addresses = facts["addresses"]
            if self.state == State.STARTING:
                self.state = State.SERVING
        elif place.role == Role.GATEWAY and self._door_opened:
            self._open_door()
        elif not self._door_opened and all(other.up for other in self._places.values()):
            self._door_opened = True
            self._open_door()

    def _open_door(self) -> None:
        for model in self.models.values():
            self._gateway.send(ModelOpened(model, self._provider(model.name)))
        self._gateway.send(OpenDoor())

    def _provider(self, model: str) -> str:
        for place in self._places.values():
            if place.model == model and place.process is not None and "provider" in place.process.facts:
                return str(place.process.facts["provider"])
        return ""

    def _on_death(self, place: Place, process: Process) -> None:
        code = process.exit_code
        if self.state == State.STARTING:
            return self._fail(f"{place.name} ended before it was ready (exit code {code})")
        if self.state in (State.STOPPING, State.FAILED) or place.leaving:
            place.process = None
            return None
        log.warning("%s died (exit code %s); starting it again", place.name, code)
        if place.role == Role.WORKER:
            self._link.send(WorkerDown(process.name))
        if not place.died(time.monotonic(), self._config.restart_budget):
            self._fail(
                f"{place.name} died more than {self._config.restart_budget} times in a minute (option restart_budget)"
            )
        return None

    def _fail(self, text: str) -> None:
        self.failure = self.failure or text
        self.state = State.FAILED

    # --- stop --------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Take no more jobs; stop when the last one is answered."""
        if self.state == State.SERVING:
            self.state = State.DRAINING
            self._deadline = time.monotonic() + self._config.drain_timeout_ms / 1000
            self._link.send(Drain())
            self._link.flush()
        else:
            self.state = State.STOPPING

    def stop(self) -> None:
        """End every process and remove every segment; whatever happened before."""
        self._link.send(StopWorkers())
        self._gateway.send(CloseDoor())
        self._link.flush()
        self._gateway.flush()
        for place in self._places.values():
            place.leaving = True
            place.start_at = None
        patience = time.monotonic() + (_LAST_WORDS if self.state != State.FAILED else 0.2)
        for process in {process for _, process in self._watched.values()}:
            if not process.reap(max(0.0, patience - time.monotonic())):
                process.kill()
        self._link.close()
        self._gateway.close()
        self._context.destroy(linger=0)
        for ring in self._rings:
            ring.close()
            ring.unlink()


def _stage(kind: str) -> str:
    from parallel_infer.child import Child

    stages = Child.load(_STAGES)
    try:
        return str(stages[kind])
    except KeyError:
        raise ConfigError(f"no stage {kind!r} in {_STAGES}") from None
