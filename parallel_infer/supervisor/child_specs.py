"""Who has to be there: every child by its slot, its incarnations, and when it may be started again."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from enum import Enum
from importlib.metadata import version
from pathlib import Path

import msgspec

from parallel_infer.config.schema import ServerConfig
from parallel_infer.doors.options import DoorOptions, GrpcOptions, HttpOptions, ZmqOptions
from parallel_infer.errors import ConfigError
from parallel_infer.ipc.messages import ModelPlan
from parallel_infer.limits import largest_frame
from parallel_infer.loading import load_by_name
from parallel_infer.process.options import (
    ChildOptions,
    DecodeOptions,
    DispatcherOptions,
    GatewayOptions,
    InferOptions,
    PostprocessOptions,
)
from parallel_infer.process.spawn import Process
from parallel_infer.supervisor.plan import Plan

_STAGES = "stages.pipeline:STAGES"
_DOORS = "parallel_infer.doors.process:"
_WORKER = "parallel_infer.worker.loop:"
_WINDOW = 60.0  # seconds in which restarts are counted
_FREE = 3  # restarts at once, or half of the budget where that is more; later ones wait, longer each time
_LONGEST_WAIT = 5.0  # seconds
_EXHAUSTED_WAIT = 30.0  # seconds until a slot whose budget is used up is tried again


class Role(Enum):
    """What a child is."""

    DISPATCHER = "dispatcher"
    GATEWAY = "gateway"
    WORKER = "worker"
    DOOR = "door"


class ChildSlot:
    """One child's slot: survives the processes that fill it."""

    def __init__(self, name: str, role: Role, entry: str, options: ChildOptions, model: str = "") -> None:
        self.name = name
        self.role = role
        self.entry = entry
        self.options = options
        self.model = model  # an infer worker's: the model's key
        self.incarnation = 0
        self.process: Process | None = None
        self.up = False
        self.leaving = False
        self.start_at: float | None = None  # when a dead child is to be started again
        self.up_by = math.inf  # when a child that is being started counts as hung
        self.restarts = 0
        self.last_error = ""  # why the process says it ends
        self._recent: deque[float] = deque()

    def start(self) -> Process:
        """Fill the slot with a new process."""
        self.incarnation += 1
        self.up = False
        self.start_at = None
        self.last_error = ""
        options = msgspec.structs.replace(self.options, epoch=self.incarnation)
        self.process = Process(f"{self.name}.{self.incarnation}", self.entry, options)
        self.process.start()
        return self.process

    def leave(self) -> None:
        """Its process ends by itself now: it answers nobody any more, and is not started again."""
        self.up = False
        self.leaving = True
        self.up_by = math.inf

    @property
    def late_at(self) -> float | None:
        """When its process has to be killed unless it is up by then; None where there is no such time."""
        return None if self.up or self.process is None or math.isinf(self.up_by) else self.up_by

    def died(self, now: float, budget: int) -> bool:
        """Plan the next start; False when the budget of restarts is used up, so that it is a long while off."""
        self.up = False
        self.process = None
        while self._recent and self._recent[0] <= now - _WINDOW:
            self._recent.popleft()
        self._recent.append(now)
        self.restarts += 1
        number = len(self._recent)
        if number > budget:
            self.start_at = now + _EXHAUSTED_WAIT
            return False
        late = number - max(_FREE, budget // 2)
        self.start_at = now if late <= 0 else now + min(_LONGEST_WAIT, 0.1 * 2.0**late)
        return True


def inside_door(folder: Path) -> str:
    """The gateway's door for this user alone, behind which metrics are asked for."""
    return f"ipc://{folder}/inside"


class ChildSpecs:
    """Makes the slots of a run: which code runs where, and what it is told."""

    def __init__(self, config: ServerConfig, folder: Path, segments: str) -> None:
        self._config = config
        self._segments = segments
        self.dispatcher = f"ipc://{folder}/dispatcher"
        self.answers = f"ipc://{folder}/answers"
        self.inside = inside_door(folder)
        stages = load_by_name(_STAGES)
        missing = {"decode", "infer", "postprocess"} - set(stages)
        if missing:
            raise ConfigError(f"{_STAGES} has no {', '.join(sorted(missing))}")
        self._stages: dict[str, str] = dict(stages)

    def everybody(self, plan: Plan) -> Iterator[ChildSlot]:
        """All slots of a run but those of models, those that are needed first in front."""
        yield ChildSlot(
            "dispatcher",
            Role.DISPATCHER,
            "parallel_infer.dispatcher.process:main",
            DispatcherOptions(
                log_format=self._config.log_format,
                log_level=self._config.log_level,
                address=self.dispatcher,
                policy="stages.pipeline:batching",
                stage_limit=self._config.stage_limit_ms / 1000,
            ),
        )
        yield from self._postprocess_workers(plan.postprocess_workers)
        yield from self._decode_workers(plan.decode_workers)
        yield self._gateway(plan)

    @property
    def has_doors(self) -> bool:
        """Whether there are doors for clients of other protocols."""
        config = self._config
        return bool(config.http or config.grpc or config.frigate_bind or config.imagezmq_bind)

    def doors(self) -> Iterator[ChildSlot]:
        """The slots of these doors; they are clients of the gateway."""
        config = self._config
        told = DoorOptions(
            log_format=config.log_format,
            log_level=config.log_level,
            gateway=self.inside,
            timeout=config.timeout_ms / 1000,
            max_payload=int(config.max_payload_mb * 2**20),
            keys=config.keys,
            version=version("parallel-infer"),
        )
        common = msgspec.structs.asdict(told)
        if config.http:
            common["bind"] = tuple(config.http)
            http = HttpOptions(**common, memory=config.http_memory_mb << 20, aliases=tuple(config.alias))
            yield ChildSlot("http", Role.DOOR, f"{_DOORS}http", http)
        if config.grpc:
            common["bind"] = tuple(config.grpc)
            yield ChildSlot("grpc", Role.DOOR, f"{_DOORS}grpc", GrpcOptions(**common))
        if config.frigate_bind:
            common["bind"] = tuple(config.frigate_bind)
            yield ChildSlot("frigate", Role.DOOR, f"{_DOORS}frigate", ZmqOptions(**common))
        if config.imagezmq_bind:
            common["bind"] = tuple(config.imagezmq_bind)
            imagezmq = ZmqOptions(**common, model=config.imagezmq_model)
            yield ChildSlot("imagezmq", Role.DOOR, f"{_DOORS}imagezmq", imagezmq)

    def instances(self, model: ModelPlan) -> Iterator[ChildSlot]:
        """The slots of a model's infer workers."""
        options = InferOptions(
            log_format=self._config.log_format,
            log_level=self._config.log_level,
            dispatcher=self.dispatcher,
            stage=self._stages["infer"],
            plan=model,
        )
        for number in range(model.instances):
            yield ChildSlot(f"infer-{model.key}-{number}", Role.WORKER, f"{_WORKER}infer", options, model.key)

    def _decode_workers(self, count: int) -> Iterator[ChildSlot]:
        options = DecodeOptions(
            log_format=self._config.log_format,
            log_level=self._config.log_level,
            dispatcher=self.dispatcher,
            stage=self._stages["decode"],
            max_pixels=self._config.max_pixels,
            formats=tuple(self._config.formats),
            confined=self._config.confine == "on",
        )
        for number in range(count):
            yield ChildSlot(f"decode-{number}", Role.WORKER, f"{_WORKER}decode", options)

    def _postprocess_workers(self, count: int) -> Iterator[ChildSlot]:
        options = PostprocessOptions(
            log_format=self._config.log_format,
            log_level=self._config.log_level,
            dispatcher=self.dispatcher,
            stage=self._stages["postprocess"],
            answers=self.answers,
        )
        for number in range(count):
            yield ChildSlot(f"postprocess-{number}", Role.WORKER, f"{_WORKER}postprocess", options)

    def _gateway(self, plan: Plan) -> ChildSlot:
        config = self._config
        return ChildSlot(
            "gateway",
            Role.GATEWAY,
            "parallel_infer.gateway.process:main",
            GatewayOptions(
                log_format=config.log_format,
                log_level=config.log_level,
                dispatcher=self.dispatcher,
                answers=self.answers,
                bind=tuple(config.bind),
                inside=self.inside if config.metrics_port or self.has_doors else "",
                ingress=plan.ingress,
                segments=self._segments,
                lent_memory=config.lent_memory_mb << 20,
                max_payload=int(config.max_payload_mb * 2**20),
                max_message=largest_frame(int(config.max_payload_mb * 2**20), config.max_pixels),
                timeout=config.timeout_ms / 1000,
                keys=config.keys,
                max_clients=config.max_clients,
            ),
        )
