"""A supervisor's core with everybody around it faked: processes, a dispatcher, a gateway and probes that write down
what they are told. No socket, no process and no segment; what must hold at all times is checked after every event."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from parallel_infer.config.schema import ModelConfig, ServerConfig
from parallel_infer.errors import ConfigError
from parallel_infer.ipc.messages import (
    Alive,
    Drained,
    Expect,
    FromChild,
    Left,
    Listening,
    Managed,
    ModelClosed,
    ModelPlan,
    ModelServed,
    OpenModel,
    Ping,
    PrepareModel,
    ProcessReport,
    Started,
    ToSupervisor,
)
from parallel_infer.model_spec import ModelSpec, TensorSpec
from parallel_infer.shm.ring import RingSpec
from parallel_infer.supervisor.child_slot import ChildSlot, Role
from parallel_infer.supervisor.child_specs import ChildSpecs
from parallel_infer.supervisor.core import Core, State
from parallel_infer.supervisor.outside import Found, LoadRequest, Outside
from parallel_infer.supervisor.plan import Plan, plan_model

ADDRESS = "tcp://127.0.0.1:5555"
NOT_NEWS = (Ping, ProcessReport)  # said now and then, whatever happens
Message = TypeVar("Message")
CONFIG = ServerConfig(
    models={"m": ModelConfig(path="m.onnx")},
    start_timeout_ms=10_000,
    silence_limit_ms=8_000,
    drain_timeout_ms=5_000,
    restart_budget=4,
    decode_workers=1,
    postprocess_workers=1,
    instances=2,
    threads=1,
    alone_threads=1,
    provider="cpu",
)


def spec(name: str, digest: str = "0" * 64) -> ModelSpec:
    """What a probe finds out."""
    tensor = (TensorSpec("x", "float32", (1,)),)
    return ModelSpec(
        name=name, path=f"{name}.onnx", task="tensor", family="tensor", inputs=tensor, outputs=tensor, digest=digest
    )


class FakeOutbox:
    """A link whose messages lie there."""

    def __init__(self) -> None:
        self.sent: list[object] = []

    def send(self, message: object) -> None:
        self.sent.append(message)

    def told(self, kind: type[Message]) -> list[Message]:
        """What was said of this kind since the last time; everything else is forgotten."""
        found = [message for message in self.sent if isinstance(message, kind)]
        self.sent.clear()
        return found

    def news(self) -> list[str]:
        """What was said since the last time, by kind, but for what is said all the time."""
        found = [type(message).__name__ for message in self.sent if not isinstance(message, NOT_NEWS)]
        self.sent.clear()
        return found


class FakeProcesses:
    """Who runs, by name of the process, and what was done to it."""

    def __init__(self) -> None:
        self.running: dict[str, ChildSlot] = {}
        self.started: list[str] = []
        self.killed: list[str] = []  # their ends are still to be told
        self.stopped: list[str] = []
        self.asked: list[str] = []  # to end
        self.asked_for_life: list[str] = []

    def start(self, slot: ChildSlot) -> None:
        assert all(other.name != slot.name for other in self.running.values()), "two processes in one slot"
        self.running[slot.running] = slot
        self.started.append(slot.running)

    def kill(self, slot: ChildSlot) -> None:
        assert slot.running in self.running
        if slot.running not in self.killed:
            self.killed.append(slot.running)

    def stop(self, slot: ChildSlot) -> None:
        del self.running[slot.running]
        self.killed = [killed for killed in self.killed if killed != slot.running]
        self.stopped.append(slot.running)

    def ask_to_end(self, slot: ChildSlot) -> None:
        self.asked.append(slot.running)

    def ask_for_life(self, slot: ChildSlot) -> None:
        assert slot.running in self.running
        self.asked_for_life.append(slot.running)


class FakeResources:
    """Probes that are under way, copies and segments that are there."""

    def __init__(self, processes: FakeProcesses) -> None:
        self._processes = processes
        self.probes: dict[str, LoadRequest] = {}
        self.kept: list[ModelSpec] = []
        self.rings: set[str] = set()
        self.lent_removed: list[int] = []  # epochs of gateways
        self.missing: set[str] = set()  # models whose files somebody has removed
        self.is_full = False

    def probe(self, request: LoadRequest) -> None:
        assert request.name not in self.probes
        self.probes[request.name] = request

    def end_probe(self, name: str) -> None:
        del self.probes[name]

    def keep(self, found: ModelSpec) -> ModelSpec:
        self.kept.append(found)
        return found

    def release(self, found: ModelSpec) -> None:
        if found in self.kept:  # those of the plan were kept before the core was there
            self.kept.remove(found)

    def has_file(self, found: ModelSpec) -> bool:
        return found.name not in self.missing

    def remove_lent(self, gateway: int) -> None:
        self.lent_removed.append(gateway)

    def create_rings(self, plan: ModelPlan) -> None:
        if self.is_full:
            raise ConfigError("not enough shared memory")
        self.rings.add(plan.key)

    def remove_rings(self, key: str) -> None:
        assert all(slot.model != key for slot in self._processes.running.values()), "somebody may still write there"
        self.rings.discard(key)


class Rig:
    """The core, its surroundings, and a clock that stands still until it is told."""

    def __init__(self, **settings: Any) -> None:
        self.now = 100.0
        self.config = msgspec.structs.replace(CONFIG, **settings)
        self.processes = FakeProcesses()
        self.resources = FakeResources(self.processes)
        self.dispatcher = FakeOutbox()
        self.gateway = FakeOutbox()
        plans = tuple(
            plan_model(self.config, model, spec(name), "segment-{}".format, 1, 1)
            for name, model in self.config.models.items()
        )
        ingress = (RingSpec("in", 1, (TensorSpec("payload", "uint8", (16,)),)),)
        outside = Outside(self.dispatcher, self.gateway, self.processes, self.resources)
        self.core = Core(
            self.config,
            Plan(plans, ingress, 1, 1, "segment-{}".format),
            ChildSpecs(self.config, Path("/run"), "segment-lent"),
            outside,
            lambda: self.now,
        )

    # --- what a test does ---------------------------------------------------------------------------------------------

    def serving(self) -> Rig:
        """Start, and let everybody be up; what was said until then is forgotten."""
        self.core.start()
        self.all_start()
        self.take(*(ModelServed(name) for name in self.config.models))
        self.say("gateway", Listening((ADDRESS,)))
        for slot in self.of_role(Role.DOOR):
            self.say(slot.name, Started())
            self.say(slot.name, Listening((f"tcp://127.0.0.1:{len(slot.name)}",)))
        assert self.core.state is State.SERVING
        self.forget()
        return self

    def forget(self) -> None:
        for log in (self.dispatcher.sent, self.gateway.sent, self.processes.started):
            log.clear()

    def all_start(self) -> None:
        """Whoever is being started is up."""
        for slot in list(self.processes.running.values()):
            if not slot.up:
                self.say(slot.name, Started(provider="CPUExecutionProvider" if slot.model else ""))

    def slot(self, name: str) -> ChildSlot:
        """The slot of this name, which a process fills."""
        return next(slot for slot in self.processes.running.values() if slot.name == name)

    def of_role(self, role: Role) -> list[ChildSlot]:
        return [slot for slot in self.processes.running.values() if slot.role is role]

    def say(self, name: str, *messages: FromChild) -> None:
        """The process of a slot says something to its parent."""
        for message in messages:
            self.core.said(self.slot(name), message)
            self.check()

    def die(self, name: str, code: int = -9) -> None:
        """The process of a slot ends."""
        slot = self.slot(name)
        del self.processes.running[slot.running]
        self.processes.killed = [killed for killed in self.processes.killed if killed != slot.running]
        self.core.ended(slot, code)
        self.check()

    def bury(self) -> list[str]:
        """Everybody who was killed since the last time is dead; who that was."""
        killed = list(self.processes.killed)
        for name in killed:
            self.die(self.processes.running[name].name)
        return killed

    def take(self, *messages: ToSupervisor) -> None:
        """The dispatcher says something."""
        for message in messages:
            self.core.take(message)
            self.check()

    def find(self, name: str, found: Found) -> None:
        """The probe of a model has found something."""
        self.core.probed(self.resources.probes[name], found)
        self.check()

    def load(self, key: str) -> None:
        """A model that was found comes up, and the dispatcher takes its jobs."""
        for slot in [slot for slot in self.processes.running.values() if slot.model == key]:
            self.say(slot.name, Started(provider="CPUExecutionProvider"))
        self.take(ModelServed(key))

    def close(self, key: str) -> None:
        """The last job of a closing model is answered."""
        self.take(ModelClosed(key))

    def pass_time(self, seconds: float, *, alive: bool = True) -> None:
        """Time passes, and the supervisor wakes up as often as it wants to; `alive`: everybody answers each Ping."""
        end = self.now + seconds
        while (timer := self.core.next_timer()) is not None and timer < end:
            self.now = max(self.now + 1e-6, timer)
            self._turn(alive)
        self.now = max(self.now, end)
        self._turn(alive)

    def _turn(self, alive: bool) -> None:
        self.core.on_timer(self.now)
        if alive:
            for role in (Role.DISPATCHER, Role.GATEWAY, Role.DOOR):
                for slot in self.of_role(role):
                    self.core.said(slot, Alive())
        self.check()

    def drained(self) -> None:
        """The gateway owes nothing any more, says how it went, and ends."""
        self.say("gateway", Drained(), Left(1, 0, 0, 0))
        self.die("gateway", 0)

    # --- what was said ------------------------------------------------------------------------------------------------

    def managed(self) -> Managed:
        """The one answer to a management request since the last time."""
        (answer,) = self.gateway.told(Managed)
        return answer

    def served_after(self) -> tuple[list[str], list[str], list[Expect]]:
        """What a new dispatcher was told: prepared and opened models, and whom to expect."""
        sent = list(self.dispatcher.sent)
        self.dispatcher.sent.clear()
        return (
            [message.plan.key for message in sent if isinstance(message, PrepareModel)],
            [message.plan.key for message in sent if isinstance(message, OpenModel)],
            [message for message in sent if isinstance(message, Expect)],
        )

    # --- what must hold -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Each process is the one its slot names, and each instance has the segments of its model."""
        for name, slot in self.processes.running.items():
            assert slot.running == name
            assert not slot.model or slot.model in self.resources.rings
