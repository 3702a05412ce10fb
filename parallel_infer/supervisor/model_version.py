"""One version of one model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

import msgspec

from parallel_infer.config.schema import ModelConfig
from parallel_infer.errors import UnknownModel
from parallel_infer.ipc.messages import ModelPlan, ModelReport
from parallel_infer.model_files.digest import SHORT
from parallel_infer.model_spec import FILE, SERVED
from parallel_infer.supervisor.child_slot import ChildSlot

log = logging.getLogger(__name__)


class LoadedModel(ModelReport, frozen=True, kw_only=True):
    """The answer to a client that had a model loaded: how it is served, and what its file was taken for."""

    became: str  # "new", "unchanged", "changed (its content)" ...
    task: str
    family: str
    evidence: tuple[str, ...]
    warnings: tuple[str, ...]


class ModelState(Enum):
    """Where a model is."""

    LOADING = "loading"
    READY = "ready"
    DEGRADED = "degraded"  # some of its instances are down
    UNAVAILABLE = "unavailable"  # its instances keep dying
    CLOSING = "closing"  # takes no more jobs


@dataclass
class ModelVersion:
    """One version of one model."""

    plan: ModelPlan
    config: ModelConfig
    slots: list[ChildSlot] = field(default_factory=list)
    serving: bool = False
    opened: bool = False  # the dispatcher takes its jobs
    closing: bool = False
    failed: bool = False  # its instances keep dying
    query: int | None = None  # the client's request that waits for this
    became: str = "new"  # against what was served under its name before

    @property
    def state(self) -> ModelState:
        """Where it is."""
        if self.closing:
            return ModelState.CLOSING
        if self.failed:
            return ModelState.UNAVAILABLE
        if not self.serving:
            return ModelState.LOADING
        return ModelState.READY if all(slot.up for slot in self.slots) else ModelState.DEGRADED

    @property
    def provider(self) -> str:
        """What runs it, as the instances that are up say, on each device once."""
        return "; ".join(dict.fromkeys(slot.started.provider for slot in self.slots if slot.started.provider))

    def digest_known(self, config: ModelConfig) -> str:
        """The digest of what needs not be loaded again by the same settings; empty where it has to be."""
        in_place = self.plan.spec.path == self.config.path  # what is served there is what the path means
        return "" if self.failed or (in_place and config.path != self.config.path) else self.plan.spec.digest

    def log_served(self) -> None:
        """Say in the log that it is served, and what may be wrong with it."""
        plan = self.plan
        content = f"sha256 {plan.spec.digest[:SHORT]}"
        log.info("model %s is served: version %d on %s, %s", plan.name, plan.version, self.provider, content)
        for warning in plan.spec.warnings:
            log.warning("model %s: %s", plan.name, warning)

    def loaded(self, became: str, broke: Sequence[str] = ()) -> LoadedModel:
        """What a client is told that asked for it, with warnings of what does not work with it."""
        spec = self.plan.spec
        return LoadedModel(
            **msgspec.structs.asdict(self.report()),
            became=became,
            task=spec.task,
            family=spec.family,
            evidence=spec.evidence,
            warnings=(*spec.warnings, *broke),
        )

    def report(self) -> ModelReport:
        """For the status."""
        return ModelReport(
            name=self.plan.name,
            version=self.plan.version,
            state=self.state.value,
            digest=self.plan.spec.digest,
            provider=self.provider,
            memory=self.plan.rows.size + self.plan.outputs.size,
            trial=self.plan.trial,
        )


def name_given(name: str, path: str) -> str:
    """The name that a user has given to a model: a door that loads the file of NAME serves it under another one."""
    return name.removesuffix(FILE) if path.startswith(SERVED) else name


def path_meant(path: str, served: Callable[[str], ModelVersion | None]) -> str:
    """A path as a client gives it; for served:NAME that of the file of a model that is served. Raises UnknownModel."""
    name = path.removeprefix(SERVED)
    if name == path:
        return path
    version = served(name)
    if version is None:
        raise UnknownModel(f"no model {name!r} is served")
    return version.plan.spec.path
