"""The lineup: which models are served, which are being loaded beside them, and which are being drained."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from parallel_infer.channel import AnswerLink, Link
from parallel_infer.config import ModelConfig, ServerConfig
from parallel_infer.config_fields import MODEL_FIELDS
from parallel_infer.config_sources import zoo_models
from parallel_infer.errors import BadInput, ConfigError, InferError, ModelRejected, UnknownModel
from parallel_infer.messages import (
    CloseModel,
    Manage,
    Managed,
    ModelClosed,
    ModelFailed,
    ModelOpened,
    OpenModel,
    PrepareModel,
    ToSupervisor,
)
from parallel_infer.model_files import find_model
from parallel_infer.plan import Plan, plan_model, probed, start_probe, too_slow
from parallel_infer.segment import RunMark
from parallel_infer.supervisor.crew import Place, Roster
from parallel_infer.supervisor.lined import Lined, Probing

log = logging.getLogger(__name__)


class Employer(Protocol):
    """Who runs the processes that models need."""

    def hire(self, place: Place) -> None:
        """Fill a new place, and keep it filled."""

    def dismiss(self, place: Place) -> None:
        """End a place and its process."""

    def listen(self, descriptor: int) -> None:
        """Call `Lineup.heard` when there is something on a descriptor."""

    def ignore(self, descriptor: int) -> None:
        """No more."""

    def report(self) -> None:
        """Say how processes and models are."""

    def drain(self) -> None:
        """Stop the server when the last job is answered."""


class Lineup:
    """Loads, serves, reloads and unloads models; tells the dispatcher and the gateway."""

    def __init__(
        self,
        config: ServerConfig,
        plan: Plan,
        mark: RunMark,
        roster: Roster,
        dispatcher: Link[ToSupervisor],
        gateway: AnswerLink,
        employer: Employer,
    ) -> None:
        self._config = config
        self._plan = plan
        self._mark = mark
        self._roster = roster
        self._dispatcher = dispatcher
        self._gateway = gateway
        self._employer = employer
        self._models: dict[str, Lined] = {}  # by key
        self._versions: dict[str, int] = {}  # the last one of each name
        self._probes: list[Probing] = []
        self._unloading: dict[str, int] = {}  # key -> the client's request that waits for its end

    @property
    def names(self) -> list[str]:
        """The names of the models that are served."""
        return [lined.plan.name for lined in self._models.values() if lined.serving and not lined.closing]

    @property
    def deadlines(self) -> list[float]:
        """When model files that are being looked into have taken too long."""
        return [probing.deadline for probing in self._probes]

    def facts(self) -> dict[str, Any]:
        """How each model is, by key, for the status."""
        return {key: lined.facts() for key, lined in self._models.items()}

    # --- start -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Make room for the models of the plan and start their instances. Raises ConfigError when memory is short."""
        models = self._config.models or zoo_models()
        for plan in self._plan.models:
            self._add(Lined(plan, models[plan.name]))

    def serve_all(self) -> None:
        """Everything is up for the first time."""
        for lined in self._models.values():
            self._serve(lined)
            self._log_served(lined)

    def introduce(self) -> None:
        """Tell a new dispatcher what is served."""
        for lined in self._models.values():
            self._dispatcher.send(PrepareModel(lined.plan))
            if lined.serving:
                self._dispatcher.send(OpenModel(lined.plan))
            if lined.closing:
                self._dispatcher.send(CloseModel(lined.plan.key))

    def open_doors(self) -> None:
        """Tell a new gateway what is served."""
        for lined in self._models.values():
            if lined.serving and not lined.closing:
                self._gateway.send(ModelOpened(lined.plan, lined.provider))

    # --- instances ---------------------------------------------------------------------------------------------------

    def instance_up(self, place: Place) -> None:
        """An infer worker has started."""
        lined = self._models.get(place.model)
        if lined is None:
            return
        lined.failed = False
        if not lined.serving and all(other.up for other in lined.places):
            self._serve(lined)
            self._gateway.send(ModelOpened(lined.plan, lined.provider))
            self._log_served(lined)
            spec = lined.plan.spec
            said = {"evidence": list(spec.evidence), "warnings": list(spec.warnings)}
            self._tell(lined.query, {**lined.facts(), "task": spec.task, "family": spec.family, **said})

    def instance_failed(self, place: Place, why: str) -> bool:
        """An infer worker did not start, or died; whether that was the end of a model which was being loaded."""
        lined = self._models.get(place.model)
        if lined is None or lined.serving:
            return False
        self._give_up(lined, why)
        return True

    def exhausted(self, place: Place) -> None:
        """An infer worker has died too often: its model is unavailable where it was the last one."""
        lined = self._models.get(place.model)
        if lined is not None and not any(other.up for other in lined.places):
            lined.failed = True
            self._dispatcher.send(ModelFailed(lined.plan.key, "its workers keep dying"))

    # --- requests ----------------------------------------------------------------------------------------------------

    def manage(self, message: Manage) -> None:
        """A client wants something loaded, unloaded, or the server stopped."""
        arguments = message.arguments
        try:
            if message.verb == "load":
                self._load(arguments["name"], _model_config(arguments), message.query)
            elif message.verb == "unload":
                self._unload(arguments["name"], message.query)
            else:
                self._tell(message.query, {})
                self._employer.drain()
        except (InferError, ConfigError) as error:
            self._tell(message.query, error)

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

    def heard(self, there: Iterable[object]) -> None:
        """Something came from the descriptors `there`; perhaps from a process that looks into a model file."""
        for probing in [p for p in self._probes if p.process.connection.fileno() in there]:
            self._on_probed(probing)

    def on_time(self, now: float) -> None:
        """Give up on model files that take too long."""
        for probing in [probing for probing in self._probes if probing.deadline <= now]:
            self._end_probe(probing)
            self._tell(probing.query, ModelRejected(f"model {probing.name!r}: {too_slow(self._config)}"))

    def closed(self, key: str) -> None:
        """The last job of a model that takes no more is answered."""
        lined = self._models.get(key)
        if lined is not None and lined.closing:
            self._remove(lined)
            log.info("model %s: version %d is closed", lined.plan.name, lined.plan.version)
            self._employer.report()
        self._tell(self._unloading.pop(key, None), {"name": lined.plan.name if lined else key})

    # --- end ---------------------------------------------------------------------------------------------------------

    def end_probes(self) -> None:
        """Look into no more model files."""
        for probing in list(self._probes):
            self._end_probe(probing)

    def remove_rings(self) -> None:
        """Remove every model's segments; all processes have ended."""
        for lined in self._models.values():
            lined.remove_rings()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _add(self, lined: Lined, *, running: bool = False) -> None:
        """Make room for a model and start its instances; it is served once they are up."""
        key = lined.plan.key
        self._models[key] = lined
        self._versions[lined.plan.name] = lined.plan.version
        lined.create_rings()
        if running:
            self._dispatcher.send(PrepareModel(lined.plan))
        for place in self._roster.instances(lined.plan):
            lined.places.append(place)
            self._employer.hire(place)

    def _serve(self, lined: Lined) -> None:
        """Let jobs of its name go to this version; an older one takes no more and closes when it is done."""
        for older in self._models.values():
            if older.plan.name == lined.plan.name and older is not lined and older.serving:
                older.closing = True
        lined.serving = True
        self._dispatcher.send(OpenModel(lined.plan))

    @staticmethod
    def _log_served(lined: Lined) -> None:
        log.info("model %s is served: version %d on %s", lined.plan.name, lined.plan.version, lined.provider)
        if lined.query is not None:
            for warning in lined.plan.spec.warnings:
                log.warning("model %s: %s", lined.plan.name, warning)

    def _load(self, name: str, config: ModelConfig, query: int | None) -> None:
        if any(p.name == name for p in self._probes) or any(
            lined.plan.name == name and not lined.serving for lined in self._models.values()
        ):
            raise BadInput(f"model {name!r} is being loaded already")
        deadline = time.monotonic() + self._config.start_timeout_ms / 1000
        probing = Probing(name, config, start_probe(name, config, self._config), deadline, query)
        self._probes.append(probing)
        self._employer.listen(probing.process.connection.fileno())

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
                self._add(lined, running=True)
            except ConfigError:
                self._remove(lined)
                raise
        except (InferError, ConfigError) as error:
            log.warning("%s", error)
            self._tell(probing.query, error)
        finally:
            self._end_probe(probing)
        self._employer.report()

    def _end_probe(self, probing: Probing) -> None:
        self._employer.ignore(probing.process.connection.fileno())
        probing.process.kill()
        probing.process.close()
        self._probes.remove(probing)

    def _give_up(self, lined: Lined, why: str) -> None:
        """A model that was being loaded cannot be served; what is served goes on."""
        text = f"model {lined.plan.name!r} cannot be loaded: {why}"
        log.warning("%s", text)
        self._remove(lined)
        self._dispatcher.send(CloseModel(lined.plan.key))
        self._tell(lined.query, ModelRejected(text))

    def _unload(self, name: str, query: int | None) -> None:
        for lined in self._models.values():
            if lined.plan.name == name and lined.serving and not lined.closing:
                # First the door, so that no new job is let in; the last jobs inside are still answered.
                self._gateway.send(ModelClosed(name))
                lined.closing = True
                self._dispatcher.send(CloseModel(lined.plan.key))
                if query is not None:
                    self._unloading[lined.plan.key] = query
                return
        known = ", ".join(sorted(self.names)) or "none"
        raise UnknownModel(f"no model {name!r} is served; served are: {known}")

    def _remove(self, lined: Lined) -> None:
        """End a model's instances, which hold no lease, and remove its segments."""
        self._models.pop(lined.plan.key, None)
        for place in lined.places:
            self._employer.dismiss(place)
        lined.remove_rings()

    def _tell(self, query: int | None, outcome: dict[str, Any] | Exception) -> None:
        """Answer a client's management request."""
        if query is None:
            return
        if isinstance(outcome, Exception):
            code = outcome.code if isinstance(outcome, InferError) else BadInput.code
            self._gateway.send(Managed(query, code, str(outcome), {}))
        else:
            self._gateway.send(Managed(query, "", "", outcome))


def _model_config(arguments: dict[str, Any]) -> ModelConfig:
    """The configuration in a client's load request. Raises BadInput or ConfigError."""
    given = {**arguments.get("options", {}), "path": find_model(arguments["path"], Path("/"))}
    try:
        return msgspec.convert(given, ModelConfig)
    except msgspec.ValidationError as error:
        raise BadInput(f"options of the model: {_explained(error)}") from None


def _explained(error: msgspec.ValidationError) -> str:
    """The field first, and what it takes."""
    problem, _, place = str(error).partition(" - at `$.")
    field = MODEL_FIELDS.get(re.split(r"[.\[`]", place)[0])
    return str(error) if field is None else f"{field.name}: {problem}; expected {field.expected}"
