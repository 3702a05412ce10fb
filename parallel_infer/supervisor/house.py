"""The house: everything of one run, from its first segment to its last process."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec

from parallel_infer.channel import AnswerLink, Link, Watch, new_context
from parallel_infer.config import ModelConfig, ServerConfig
from parallel_infer.config_sources import zoo_models
from parallel_infer.errors import BadInput, ConfigError, InferError, ModelRejected, UnknownModel
from parallel_infer.messages import (
    Alive,
    CloseDoor,
    CloseModel,
    CrewReport,
    Drain,
    Drained,
    Expect,
    KillWorker,
    Manage,
    Managed,
    ModelClosed,
    ModelFailed,
    ModelOpened,
    OpenDoor,
    OpenModel,
    PrepareModel,
    Pulse,
    Started,
    StopWorkers,
    ToSupervisor,
    WorkerDown,
)
from parallel_infer.model_files import find_model
from parallel_infer.plan import Plan, plan_model, probed, start_probe, too_slow
from parallel_infer.process import Process
from parallel_infer.ring import Ring
from parallel_infer.segment import RunMark
from parallel_infer.supervisor.crew import Place, Role, Roster
from parallel_infer.supervisor.heart import Heart
from parallel_infer.supervisor.lineup import Lined, Probing

log = logging.getLogger(__name__)
_LAST_WORDS = 3.0  # seconds a child has to leave on its own


class State(Enum):
    """Where the run is."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    STOPPING = "stopping"
    FAILED = "failed"


class House:
    """Starts, watches, restarts and stops the processes of one run, and lines up its models."""

    def __init__(self, config: ServerConfig, plan: Plan, mark: RunMark, folder: Path, wake: int) -> None:
        self._config = config
        self._plan = plan
        self._mark = mark
        self.state = State.STARTING
        self.addresses: list[str] = []
        self.failure = ""
        self._roster = Roster(config, folder, mark.segment_name("lent"))
        self._ingress: list[Ring] = []
        self._models: dict[str, Lined] = {}  # by key
        self._versions: dict[str, int] = {}  # the last one of each name
        self._probes: list[Probing] = []
        self._unloading: dict[str, int] = {}  # key -> the client's request that waits for its end
        self._places: dict[str, Place] = {}
        self._watched: dict[int, tuple[Place, Process]] = {}
        self._deadline = time.monotonic() + config.start_timeout_ms / 1000
        self._heart = Heart(config.silence_limit_ms / 1000)
        self._door_opened = False
        self._context = new_context()
        self._link: Link[ToSupervisor] = Link(self._context, self._roster.dispatcher, "supervisor", ToSupervisor)
        self._gateway = AnswerLink(self._context, self._roster.answers)
        self._watch = Watch()
        self._watch.add(self._link.socket)
        self._watch.add(wake)

    @property
    def names(self) -> list[str]:
        """The names of the models that are served."""
        return [lined.plan.name for lined in self._models.values() if lined.serving and not lined.closing]

    # --- start -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Create every segment, then start every process. Raises ConfigError when memory is short."""
        for spec in self._plan.ingress:
            self._ingress.append(Ring.create(spec))
        models = self._config.models or zoo_models()
        for plan in self._plan.models:
            self._line_up(Lined(plan, models[plan.name]))
        for place in self._roster.everybody(self._plan):
            self._places[place.name] = place
            self._start(place)

    def _line_up(self, lined: Lined) -> None:
        """Make room for a model and start its instances; it is served once they are up."""
        key = lined.plan.key
        self._models[key] = lined
        self._versions[lined.plan.name] = lined.plan.version
        lined.create_rings()
        if self.state != State.STARTING:
            self._link.send(PrepareModel(lined.plan))
        for place in self._roster.instances(lined.plan):
            lined.places.append(place)
            self._places[place.name] = place
            self._start(place)

    def _start(self, place: Place) -> None:
        process = place.start()
        place.up_by = time.monotonic() + self._config.start_timeout_ms / 1000
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
            for probing in [p for p in self._probes if p.process.connection.fileno() in there]:
                self._on_probed(probing)
            self._on_time(time.monotonic())
            self._link.flush()
            self._gateway.flush()

    def _timeout(self) -> float | None:
        times = [place.start_at for place in self._places.values() if place.start_at is not None]
        times += [probing.deadline for probing in self._probes]
        if self.state in (State.STARTING, State.DRAINING):
            times.append(self._deadline)
        if self.state != State.STARTING:
            times += [late for place in self._places.values() if (late := place.late_at) is not None]
            times.append(self._heart.due)
        return min(times) - time.monotonic() if times else None

    def _on_time(self, now: float) -> None:
        for place in self._places.values():
            if place.start_at is not None and place.start_at <= now:
                self._start(place)
            if self.state != State.STARTING and place.late_at is not None and place.late_at <= now:
                log.warning("%s is killed: it hangs in its start (option start_timeout_ms)", place.name)
                self._end_late(place)
        if self.state != State.STARTING and now >= self._heart.due:
            self._beat(now)
        for probing in [probing for probing in self._probes if probing.deadline <= now]:
            self._end_probe(probing)
            self._tell(probing.query, ModelRejected(f"model {probing.name!r}: {too_slow(self._config)}"))
        if now >= self._deadline and self.state == State.STARTING:
            missing = ", ".join(place.name for place in self._places.values() if not place.up)
            limit = f"{self._config.start_timeout_ms / 1000:.0f} s (option start_timeout_ms)"
            self._fail(f"not ready after {limit}: nothing was heard from {missing}")
        if now >= self._deadline and self.state == State.DRAINING:
            log.warning("stopping with jobs unanswered (option drain_timeout_ms)")
            self.state = State.STOPPING

    def _take(self, message: ToSupervisor) -> None:
        if isinstance(message, KillWorker):
            self._kill(message)
        elif isinstance(message, Drained) and self.state == State.DRAINING:
            self.state = State.STOPPING
        elif isinstance(message, ModelClosed):
            self._on_model_closed(message.model)
        elif isinstance(message, Manage):
            self._manage(message)

    def _introduce(self) -> None:
        """Tell a dispatcher that has just started what is served and who lives."""
        for lined in self._models.values():
            self._link.send(PrepareModel(lined.plan))
            if lined.serving:
                self._link.send(OpenModel(lined.plan))
            if lined.closing:
                self._link.send(CloseModel(lined.plan.key))
        workers: list[str] = []
        starting: list[str] = []
        gateway = ""
        for place in self._places.values():
            if place.process is not None and place.role == Role.WORKER:
                (workers if place.up else starting).append(place.process.name)
            elif place.process is not None and place.role == Role.GATEWAY:
                gateway = place.process.name
        self._link.send(Expect(tuple(workers), gateway, tuple(starting)))
        self._report()
        if self.state == State.DRAINING:
            self._link.send(Drain())

    def _report(self) -> None:
        """Tell the dispatcher, who answers for the status, how processes and models are."""
        processes = {
            place.name: {"state": "up" if place.up else "down", "restarts": place.restarts}
            for place in self._places.values()
        }
        self._link.send(CrewReport(processes, {key: lined.facts() for key, lined in self._models.items()}))

    # --- children ----------------------------------------------------------------------------------------------------

    @staticmethod
    def _end_late(place: Place) -> None:
        place.up_by = math.inf  # once; what follows is that of any death
        if place.process is not None:
            place.process.kill()

    def _beat(self, now: float) -> None:
        """Ask the dispatcher and the gateway for a sign of life, and end what has given none for too long."""
        for place, stuck in self._heart.beat(now, self._places.values()):
            if stuck and place.process is not None:
                log.warning("%s is killed: it hangs (option silence_limit_ms)", place.name)
                place.process.kill()
            elif place.role == Role.DISPATCHER:
                self._link.send(Pulse())
            else:
                self._gateway.send(Pulse())

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
            elif isinstance(word, Alive):
                self._heart.answered(process.name)
            else:
                self._on_start_failed(place, word.text)
            return
        process.reap()
        code = process.exit_code
        for watched in (process.sentinel, process.connection.fileno()):
            self._forget(watched)
        process.close()
        if place.process is process:
            self._on_death(place, process.name, code)

    def _forget(self, descriptor: int) -> None:
        self._watched.pop(descriptor, None)
        self._watch.remove(descriptor)

    def _on_started(self, place: Place, facts: dict[str, Any]) -> None:
        place.up = True
        if place.process is not None:
            place.process.facts.update(facts)
        if place.role == Role.DISPATCHER:
            self._introduce()
        if place.role == Role.GATEWAY and "addresses" in facts:
            self.addresses = facts["addresses"]
            place.arguments["bind"] = self.addresses  # a successor takes the same, also where a port was left open
            if self.state == State.STARTING:
                self.state = State.SERVING
        elif place.role == Role.GATEWAY and self._door_opened:
            self._open_door()
        elif not self._door_opened and all(other.up for other in self._places.values()):
            self._door_opened = True
            for lined in self._models.values():
                self._serve(lined)
            self._open_door()
        elif place.model in self._models:
            self._instance_up(self._models[place.model])
        self._report()

    def _on_start_failed(self, place: Place, text: str) -> None:
        if self.state == State.STARTING:
            self._fail(f"{place.name} cannot start: {text}")
            return
        lined = self._models.get(place.model)
        if lined is not None and not lined.serving:
            self._give_up(lined, text.partition(": ")[2])

    def _open_door(self) -> None:
        for lined in self._models.values():
            if lined.serving and not lined.closing:
                self._gateway.send(ModelOpened(lined.plan, lined.provider))
        self._gateway.send(OpenDoor())

    def _on_death(self, place: Place, incarnation: str, code: int | None) -> None:
        if self.state == State.STARTING:
            self._fail(f"{place.name} ended before it was ready (exit code {code})")
            return
        if self.state in (State.STOPPING, State.FAILED):
            place.process = None
            return
        lined = self._models.get(place.model)
        if lined is not None and not lined.serving:
            self._give_up(lined, f"its process ended (exit code {code})")
            return
        log.warning("%s died (exit code %s); starting it again", place.name, code)
        if place.role == Role.WORKER:
            self._link.send(WorkerDown(incarnation))
        if not place.died(time.monotonic(), self._config.restart_budget):
            self._exhausted(place, lined)
        self._report()

    def _exhausted(self, place: Place, lined: Lined | None) -> None:
        log.error(
            "%s died more than %s times in a minute (option restart_budget); trying again later",
            place.name,
            self._config.restart_budget,
        )
        if lined is not None and not any(other.up for other in lined.places):
            lined.failed = True
            self._link.send(ModelFailed(lined.plan.key, "its workers keep dying"))

    def _fail(self, text: str) -> None:
        self.failure = self.failure or text
        self.state = State.FAILED

    # --- models ------------------------------------------------------------------------------------------------------

    def _instance_up(self, lined: Lined) -> None:
        lined.failed = False
        if not lined.serving and all(place.up for place in lined.places):
            self._serve(lined)
            self._gateway.send(ModelOpened(lined.plan, lined.provider))
            log.info("model %s is served: version %d on %s", lined.plan.name, lined.plan.version, lined.provider)
            self._tell(lined.query, lined.facts())

    def _serve(self, lined: Lined) -> None:
        """Let jobs of its name go to this version; an older one takes no more and closes when it is done."""
        for older in self._models.values():
            if older.plan.name == lined.plan.name and older is not lined and older.serving:
                older.closing = True
        lined.serving = True
        self._link.send(OpenModel(lined.plan))

    def _manage(self, message: Manage) -> None:
        arguments = message.arguments
        try:
            if message.verb == "load":
                self._load(arguments["name"], _model_config(arguments), message.query)
            elif message.verb == "unload":
                self._unload(arguments["name"], message.query)
            else:
                self._tell(message.query, {})
                self.drain()
        except (InferError, ConfigError) as error:
            self._tell(message.query, error)

    def _load(self, name: str, config: ModelConfig, query: int | None) -> None:
        if any(p.name == name for p in self._probes) or any(
            lined.plan.name == name and not lined.serving for lined in self._models.values()
        ):
            raise BadInput(f"model {name!r} is being loaded already")
        deadline = time.monotonic() + self._config.start_timeout_ms / 1000
        probing = Probing(name, config, start_probe(name, config, self._config), deadline, query)
        self._probes.append(probing)
        self._watch.add(probing.process.connection.fileno())

    def _on_probed(self, probing: Probing) -> None:
        try:
            spec = probed(probing.name, probing.process)
            version = self._versions.get(probing.name, 0) + 1
            plan = plan_model(
                self._config, probing.config, spec, self._mark.segment_name, self._plan.decode_workers,
                self._plan.postprocess_workers, version,
            )  # fmt: skip
            lined = Lined(plan, probing.config, query=probing.query)
            try:
                self._line_up(lined)
            except ConfigError:
                self._remove(lined)
                raise
        except (InferError, ConfigError) as error:
            log.warning("%s", error)
            self._tell(probing.query, error)
        finally:
            self._end_probe(probing)
        self._report()

    def _end_probe(self, probing: Probing) -> None:
        self._watch.remove(probing.process.connection.fileno())
        probing.process.kill()
        probing.process.close()
        self._probes.remove(probing)

    def _give_up(self, lined: Lined, why: str) -> None:
        """A model that was being loaded cannot be served; what is served goes on."""
        text = f"model {lined.plan.name!r} cannot be loaded: {why}"
        log.warning("%s", text)
        self._remove(lined)
        self._link.send(CloseModel(lined.plan.key))
        self._tell(lined.query, ModelRejected(text))

    def _unload(self, name: str, query: int | None) -> None:
        for lined in self._models.values():
            if lined.plan.name == name and lined.serving and not lined.closing:
                # First the door, so that no new job is let in; the last jobs inside are still answered.
                self._gateway.send(ModelClosed(name))
                lined.closing = True
                self._link.send(CloseModel(lined.plan.key))
                if query is not None:
                    self._unloading[lined.plan.key] = query
                return
        known = ", ".join(sorted(self.names)) or "none"
        raise UnknownModel(f"no model {name!r} is served; served are: {known}")

    def _on_model_closed(self, key: str) -> None:
        lined = self._models.get(key)
        if lined is not None and lined.closing:
            self._remove(lined)
            log.info("model %s: version %d is closed", lined.plan.name, lined.plan.version)
            self._report()
        self._tell(self._unloading.pop(key, None), {"name": lined.plan.name if lined else key})

    def _remove(self, lined: Lined) -> None:
        """End a model's instances, which hold no lease, and remove its segments."""
        self._models.pop(lined.plan.key, None)
        for place in lined.places:
            self._places.pop(place.name, None)
            process, place.process = place.process, None
            if process is not None:
                for descriptor in (process.sentinel, process.connection.fileno()):
                    self._forget(descriptor)
                process.kill()
                process.close()
        lined.remove_rings()

    def reload(self, models: dict[str, ModelConfig]) -> None:
        """Make the lineup that of `models`: load what is new or told differently, unload what is not there."""
        current = {lined.plan.name: lined for lined in self._models.values() if lined.serving and not lined.closing}
        for name in current.keys() - models.keys():
            self._unload(name, None)
        for name, config in models.items():
            if name not in current or current[name].config != config:
                try:
                    self._load(name, config, None)
                except InferError as error:
                    log.warning("%s", error)
        self._link.flush()
        self._gateway.flush()

    def _tell(self, query: int | None, outcome: dict[str, Any] | Exception) -> None:
        """Answer a client's management request."""
        if query is None:
            return
        if isinstance(outcome, Exception):
            code = outcome.code if isinstance(outcome, InferError) else BadInput.code
            self._gateway.send(Managed(query, code, str(outcome), {}))
        else:
            self._gateway.send(Managed(query, "", "", outcome))

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
        for probing in list(self._probes):
            self._end_probe(probing)
        patience = time.monotonic() + (_LAST_WORDS if self.state != State.FAILED else 0.2)
        for process in {process for _, process in self._watched.values()}:
            if not process.reap(max(0.0, patience - time.monotonic())):
                process.kill()
        self._link.close()
        self._gateway.close()
        self._context.destroy(linger=0)
        for ring in self._ingress:
            ring.close()
            ring.unlink()
        for lined in self._models.values():
            lined.remove_rings()


def _model_config(arguments: dict[str, Any]) -> ModelConfig:
    """The configuration in a client's load request. Raises BadInput or ConfigError."""
    given = {**arguments.get("options", {}), "path": find_model(arguments["path"], Path("/"))}
    try:
        return msgspec.convert(given, ModelConfig)
    except msgspec.ValidationError as error:
        raise BadInput(f"options of the model: {error}") from None
