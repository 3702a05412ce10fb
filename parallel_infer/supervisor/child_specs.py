"""Who has to be there: every child by its slot, which code runs there, and what it is told."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import msgspec

from parallel_infer.config.schema import ServerConfig
from parallel_infer.doors.known import DOORS
from parallel_infer.doors.options import DoorOptions
from parallel_infer.errors import ConfigError
from parallel_infer.ipc.messages import ModelPlan
from parallel_infer.limits import largest_frame
from parallel_infer.loading import load_by_name
from parallel_infer.machine.cores import usable_cores
from parallel_infer.process.options import (
    DecodeOptions,
    DispatcherOptions,
    GatewayOptions,
    InferOptions,
    PostprocessOptions,
)
from parallel_infer.supervisor.child_slot import ChildSlot, Role
from parallel_infer.supervisor.plan import Plan

STAGES = "stages.pipeline:STAGES"
POLICY = "stages.pipeline:batching"
_WORKER = "parallel_infer.worker."


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
        stages = load_by_name(STAGES)
        missing = {"decode", "infer", "postprocess"} - set(stages)
        if missing:
            raise ConfigError(f"{STAGES} has no {', '.join(sorted(missing))}")
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
                policy=POLICY,
                stage_limit=self._config.stage_limit_ms / 1000,
                cores=usable_cores(),
                kept=self._config.kept_pictures_mb << 20,
            ),
        )
        yield from self._postprocess_workers(plan.postprocess_workers)
        yield from self._decode_workers(plan.decode_workers)
        yield self._gateway(plan)

    @property
    def has_doors(self) -> bool:
        """Whether there are doors for clients of other protocols."""
        return any(self.doors())

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
        for door in DOORS:
            if (options := door.options(config, msgspec.structs.asdict(told))) is not None:
                yield ChildSlot(door.name, Role.DOOR, door.entry, options)

    def instances(self, model: ModelPlan) -> Iterator[ChildSlot]:
        """The slots of a model's infer workers."""
        for number in range(model.instances):
            options = InferOptions(
                log_format=self._config.log_format,
                log_level=self._config.log_level,
                dispatcher=self.dispatcher,
                stage=self._stages["infer"],
                plan=msgspec.structs.replace(model, session=model.session_of(number)),
            )
            yield ChildSlot(f"infer-{model.key}-{number}", Role.WORKER, f"{_WORKER}infer:main", options, model.key)

    def _decode_workers(self, count: int) -> Iterator[ChildSlot]:
        options = DecodeOptions(
            log_format=self._config.log_format,
            log_level=self._config.log_level,
            dispatcher=self.dispatcher,
            stage=self._stages["decode"],
            max_pixels=self._config.max_pixels,
            formats=tuple(self._config.formats),
            confined=self._config.confine == "on",
            kept=self._config.kept_pictures_mb << 20,
        )
        for number in range(count):
            yield ChildSlot(f"decode-{number}", Role.WORKER, f"{_WORKER}decode:main", options)

    def _postprocess_workers(self, count: int) -> Iterator[ChildSlot]:
        options = PostprocessOptions(
            log_format=self._config.log_format,
            log_level=self._config.log_level,
            dispatcher=self.dispatcher,
            stage=self._stages["postprocess"],
            answers=self.answers,
        )
        for number in range(count):
            yield ChildSlot(f"postprocess-{number}", Role.WORKER, f"{_WORKER}postprocess:main", options)

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
                response_cache=config.response_cache_mb << 20,
                max_payload=int(config.max_payload_mb * 2**20),
                max_message=largest_frame(int(config.max_payload_mb * 2**20), config.max_pixels),
                timeout=config.timeout_ms / 1000,
                keys=config.keys,
                max_clients=config.max_clients,
                max_objects=config.max_objects,
                max_crops=config.max_crops,
                page_picture=config.page_picture_pixels,
            ),
        )
