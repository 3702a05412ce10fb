"""The lineup: which models are served, which are being loaded beside them, and which are being drained."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import assert_never

import msgspec

from parallel_infer.config.schema import ModelConfig, ServerConfig
from parallel_infer.config.sources import model_config, zoo_models
from parallel_infer.errors import BadInput, ConfigError, InferError, ModelRejected, UnknownModel
from parallel_infer.ipc.channel import AnswerLink, Link
from parallel_infer.ipc.messages import (
    CloseModel,
    LoadModel,
    Manage,
    Managed,
    ModelClosed,
    ModelFailed,
    ModelOpened,
    ModelReport,
    OpenModel,
    PrepareModel,
    StopServer,
    ToSupervisor,
    UnloadModel,
)
from parallel_infer.model_spec import ModelSpec
from parallel_infer.supervisor.child_processes import ChildProcesses
from parallel_infer.supervisor.child_specs import ChildSpecs, Place
from parallel_infer.supervisor.model_version import LoadedModel, ModelVersion
from parallel_infer.supervisor.plan import Plan, plan_model
from parallel_infer.supervisor.probes import Found, Probes, Probing, Wish
from parallel_infer.supervisor.reload import Reload, change_in_words, changed_settings
from parallel_infer.supervisor.run import Run

log = logging.getLogger(__name__)


class ModelRegistry:
    """Loads, serves, reloads and unloads models; tells the dispatcher and the gateway."""

    def __init__(
        self,
        config: ServerConfig,
        plan: Plan,
        run: Run,
        roster: ChildSpecs,
        dispatcher: Link[ToSupervisor],
        gateway: AnswerLink,
        employer: ChildProcesses,
    ) -> None:
        self._config = config
        self._plan = plan
        self._mark = run.mark
        self._roster = roster
        self._dispatcher = dispatcher
        self._gateway = gateway
        self._employer = employer
        self._starting = True  # no door was opened yet
        self._models: dict[str, ModelVersion] = {}  # by key
        self._versions: dict[str, int] = {}  # the last one of each name
        self._probes = Probes(config, run.store, employer.listen)
        self._store = run.store
        self._reload: Reload | None = None  # the last one
        self._unloading: dict[str, int] = {}  # key -> the client's request that waits for its end

    @property
    def names(self) -> list[str]:
        """The names of the models that are served."""
        return [lined.plan.name for lined in self._models.values() if lined.serving and not lined.closing]

    @property
    def deadlines(self) -> list[float]:
        """When model files that are being looked into have taken too long."""
        return self._probes.deadlines

    def reports(self) -> dict[str, ModelReport]:
        """How each model is, by key, for the status."""
        return {key: lined.report() for key, lined in self._models.items()}

    # --- start -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Make room for the models of the plan and start their instances. Raises ConfigError when memory is short."""
        models = self._config.models or zoo_models()
        for plan in self._plan.models:
            self._add(ModelVersion(plan, models[plan.name]))

    def serve_all(self) -> None:
        """Everything is up for the first time."""
        for lined in self._models.values():
            self._serve(lined)

    def log_all(self) -> None:
        """Say in the log what is served."""
        for lined in self._models.values():
            lined.log_served()

    @property
    def all_opened(self) -> bool:
        """Whether the dispatcher takes the jobs of every model that is served."""
        return all(lined.opened for lined in self._models.values() if lined.serving)

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
        self._starting = False
        for lined in self._models.values():
            if lined.opened and not lined.closing:
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
        try:
            match message:
                case LoadModel():
                    options = msgspec.msgpack.decode(message.options)
                    self._load(message.name, model_config(message.path, options), message.query)
                case UnloadModel():
                    self._unload(message.name, message.query)
                case StopServer():
                    self._tell(message.query, {})
                    self._employer.drain()
                case _:
                    assert_never(message)
        except (InferError, ConfigError) as error:
            self._tell(message.query, error)

    def reload(self, models: dict[str, ModelConfig]) -> Reload:
        """Make the lineup that of `models`: load what is new or differs, unload what is not there."""
        reload = self._reload = Reload(models)
        for name in [lined.plan.name for lined in self._models.values() if lined.serving and not lined.closing]:
            if name not in models:
                self._unload(name, None)
                reload.note(name, "removed")
        for name, config in models.items():
            try:
                self._load(name, config, None)
            except InferError as error:
                reload.refuse(name, str(error))
        return reload

    def heard(self, there: Iterable[object]) -> None:
        """Something came from the descriptors `there`; perhaps from a process that looks into a model file."""
        for probing, found in self._probes.heard(there):
            self._on_probed(probing, found)

    def on_time(self, now: float) -> None:
        """Give up on model files that take too long."""
        for probing, found in self._probes.late(now):
            self._on_probed(probing, found)

    def opened(self, key: str) -> None:
        """The dispatcher takes jobs of a model: now clients may know of it, and whoever asked for it first of all."""
        lined = self._models.get(key)
        if lined is None or lined.opened:
            return
        lined.opened = True
        if not lined.closing:
            self._gateway.send(ModelOpened(lined.plan, lined.provider))
        if not self._starting:
            lined.log_served()
            self._became(lined.plan.name, lined.query, lined.became, lined)

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
        self._probes.end_all(self._employer.ignore)

    def remove_rings(self) -> None:
        """Remove every model's segments; all processes have ended."""
        for lined in self._models.values():
            lined.remove_rings()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _add(self, lined: ModelVersion, *, running: bool = False) -> None:
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

    def _serve(self, lined: ModelVersion) -> None:
        """Let jobs of its name go to this version; an older one takes no more and closes when it is done."""
        for older in self._models.values():
            if older.plan.name == lined.plan.name and older is not lined and older.serving:
                older.closing = True
        lined.serving = True
        self._dispatcher.send(OpenModel(lined.plan))

    def _served(self, name: str) -> ModelVersion | None:
        """What is served under a name."""
        lineds = (lined for lined in self._models.values() if lined.plan.name == name)
        return next((lined for lined in lineds if lined.serving and not lined.closing), None)

    def _load(self, name: str, config: ModelConfig, query: int | None) -> None:
        if name in self._probes.names or any(
            lined.plan.name == name and not lined.serving for lined in self._models.values()
        ):
            raise BadInput(f"model {name!r} is being loaded already")
        current = self._served(name)
        settings = changed_settings(current.config, config) if current is not None else ()
        known = ""
        if current is not None and not settings and not current.failed and Path(current.plan.spec.path).exists():
            in_place = current.plan.spec.path == current.config.path  # what is served there is what the path means
            known = current.plan.spec.digest if not in_place or config.path == current.config.path else ""
        self._probes.start(Wish(name, config, query, known, settings))

    def _on_probed(self, probing: Probing, found: Found) -> None:
        wish = probing.wish
        self._employer.ignore(probing.process.connection.fileno())
        try:
            current = self._served(wish.name)
            if isinstance(found, Exception):
                self._refuse(wish, found)
            elif found is not None:
                self._take(wish, found, current)
            elif current is not None:
                self._became(wish.name, wish.query, "unchanged", current)
        finally:
            self._probes.end(probing)
        if found is None and current is None:  # unloaded while it was looked into
            self._load(wish.name, wish.config, wish.query)
        self._employer.report()

    def _take(self, wish: Wish, found: ModelSpec, current: ModelVersion | None) -> None:
        spec = self._store.keep(found)
        try:
            version = self._versions.get(wish.name, 0) + 1
            plan = plan_model(
                self._config, wish.config, spec, self._mark.segment_name, self._plan.decode_workers,
                self._plan.postprocess_workers, version,
            )  # fmt: skip
        except (InferError, ConfigError) as error:
            self._store.release(spec)
            self._refuse(wish, error)
            return
        lined = ModelVersion(plan, wish.config, query=wish.query)
        if current is not None:
            change = change_in_words(current.plan.spec.digest, spec.digest, wish.settings)
            lined.became = f"changed ({change})"
        try:
            self._add(lined, running=True)
        except ConfigError as error:
            self._remove(lined)
            self._refuse(wish, error)

    def _became(self, name: str, query: int | None, became: str, lined: ModelVersion) -> None:
        """A model that was to be loaded is served: say what has become of it, whoever asked."""
        if query is None and self._reload is not None:
            self._reload.note(name, became)
        self._tell(query, lined.loaded(became))

    def _refuse(self, wish: Wish, error: Exception) -> None:
        if wish.query is None and self._reload is not None:
            self._reload.refuse(wish.name, str(error))  # said once, with what became of the others
        else:
            log.warning("%s", error)
        self._tell(wish.query, error)

    def _give_up(self, lined: ModelVersion, why: str) -> None:
        """A model that was being loaded cannot be served; what is served goes on."""
        self._remove(lined)
        self._dispatcher.send(CloseModel(lined.plan.key))
        wish = Wish(lined.plan.name, lined.config, lined.query)
        self._refuse(wish, ModelRejected(f"model {lined.plan.name!r} cannot be loaded: {why}"))

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

    def _remove(self, lined: ModelVersion) -> None:
        """End a model's instances, which hold no lease, and remove its segments."""
        self._models.pop(lined.plan.key, None)
        for place in lined.places:
            self._employer.dismiss(place)
        lined.remove_rings()
        self._store.release(lined.plan.spec)

    def _tell(self, query: int | None, outcome: LoadedModel | dict[str, str] | Exception) -> None:
        """Answer a client's management request."""
        if query is None:
            return
        if isinstance(outcome, Exception):
            code = outcome.code if isinstance(outcome, InferError) else BadInput.code
            self._gateway.send(Managed(query, code, str(outcome), _result({})))
        else:
            self._gateway.send(Managed(query, "", "", _result(outcome)))


def _result(outcome: LoadedModel | dict[str, str]) -> msgspec.Raw:
    return msgspec.Raw(msgspec.msgpack.encode(outcome))
