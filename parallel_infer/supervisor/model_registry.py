"""Which models are served, which are being loaded beside them, and which are being drained."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
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
    ReloadModel,
    StopServer,
    ToSupervisor,
    UnloadModel,
)
from parallel_infer.model_spec import ModelSpec
from parallel_infer.supervisor.child_processes import ChildProcesses
from parallel_infer.supervisor.child_specs import ChildSlot, ChildSpecs
from parallel_infer.supervisor.model_version import LoadedModel, ModelVersion
from parallel_infer.supervisor.plan import Plan, plan_model
from parallel_infer.supervisor.probes import Found, LoadRequest, Probes, Probing
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
        specs: ChildSpecs,
        dispatcher: Link[ToSupervisor],
        gateway: AnswerLink,
        processes: ChildProcesses,
    ) -> None:
        self._config = config
        self._plan = plan
        self._mark = run.mark
        self._specs = specs
        self._dispatcher = dispatcher
        self._gateway = gateway
        self._processes = processes
        self._starting = True  # no door was opened yet
        self._models: dict[str, ModelVersion] = {}  # by key
        self._versions: dict[str, int] = {}  # the last one of each name
        self._probes = Probes(config, run.store, processes.watch)
        self._store = run.store
        self._reload: Reload | None = None  # the last one
        self._unloading: dict[str, int] = {}  # key -> the client's request that waits for its end

    @property
    def names(self) -> list[str]:
        """The names of the models that are served."""
        return [version.plan.name for version in self._models.values() if version.serving and not version.closing]

    @property
    def deadlines(self) -> list[float]:
        """When model files that are being looked into have taken too long."""
        return self._probes.deadlines

    def reports(self) -> dict[str, ModelReport]:
        """How each model is, by key, for the status."""
        return {key: version.report() for key, version in self._models.items()}

    # --- start -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Make room for the models of the plan and start their instances. Raises ConfigError when memory is short."""
        models = self._config.models or zoo_models()
        for plan in self._plan.models:
            self._add(ModelVersion(plan, models[plan.name]))

    def serve_all(self) -> None:
        """Everything is up for the first time."""
        for version in self._models.values():
            self._serve(version)

    def log_all(self) -> None:
        """Say in the log what is served."""
        for version in self._models.values():
            version.log_served()

    @property
    def all_opened(self) -> bool:
        """Whether the dispatcher takes the jobs of every model that is served."""
        return all(version.opened for version in self._models.values() if version.serving)

    def introduce(self) -> None:
        """Tell a new dispatcher what is served."""
        for version in self._models.values():
            self._dispatcher.send(PrepareModel(version.plan))
            if version.serving:
                self._dispatcher.send(OpenModel(version.plan))
            if version.closing:
                self._dispatcher.send(CloseModel(version.plan.key))

    def open_doors(self) -> None:
        """Tell a new gateway what is served."""
        self._starting = False
        for version in self._models.values():
            if version.opened and not version.closing:
                self._gateway.send(ModelOpened(version.plan, version.provider))

    # --- instances ---------------------------------------------------------------------------------------------------

    def instance_up(self, slot: ChildSlot) -> None:
        """An infer worker has started."""
        version = self._models.get(slot.model)
        if version is None:
            return
        version.failed = False
        if not version.serving and all(other.up for other in version.slots):
            self._serve(version)

    def instance_failed(self, slot: ChildSlot, why: str) -> bool:
        """An infer worker did not start, or died; whether that was the end of a model which was being loaded."""
        version = self._models.get(slot.model)
        if version is None or version.serving:
            return False
        self._give_up(version, why)
        return True

    def exhausted(self, slot: ChildSlot) -> None:
        """An infer worker has died too often: its model is unavailable where it was the last one."""
        version = self._models.get(slot.model)
        if version is not None and not any(other.up for other in version.slots):
            version.failed = True
            self._dispatcher.send(ModelFailed(version.plan.key, "its workers keep dying"))

    # --- requests ----------------------------------------------------------------------------------------------------

    def manage(self, message: Manage) -> None:
        """A client wants something loaded, unloaded, or the server stopped."""
        try:
            match message:
                case LoadModel():
                    options = msgspec.msgpack.decode(message.options)
                    self._load(message.name, model_config(message.path, options), message.query)
                case ReloadModel():
                    self._load_again(message.name, message.query)
                case UnloadModel():
                    self._unload(message.name, message.query)
                case StopServer():
                    self._tell(message.query, {})
                    self._processes.drain()
                case _:
                    assert_never(message)
        except (InferError, ConfigError) as error:
            self._tell(message.query, error)

    def reload(self, models: dict[str, ModelConfig]) -> Reload:
        """Make the served models those of `models`: load what is new or differs, then unload what is not there."""
        reload = self._reload = Reload(models, [name for name in self.names if name not in models])
        self._load_all(models, reload)
        self._go_on(reload)
        return reload

    def handle_readable(self, there: Iterable[object]) -> None:
        """These descriptors are readable; some may be of processes that look into a model file."""
        for probing, found in self._probes.results(there):
            self._on_probed(probing, found)

    def on_time(self, now: float) -> None:
        """Give up on model files that take too long."""
        for probing, found in self._probes.late(now):
            self._on_probed(probing, found)

    def opened(self, key: str) -> None:
        """The dispatcher takes jobs of a model: now clients may know of it, and whoever asked for it first of all."""
        version = self._models.get(key)
        if version is None or version.opened:
            return
        version.opened = True
        if not version.closing:
            self._gateway.send(ModelOpened(version.plan, version.provider))
        if not self._starting:
            version.log_served()
            self._became(version.plan.name, version.query, version.became, version)

    def closed(self, key: str) -> None:
        """The last job of a model that takes no more is answered."""
        version = self._models.get(key)
        if version is not None and version.closing:
            self._remove(version)
            log.info("model %s: version %d is closed", version.plan.name, version.plan.version)
            self._processes.report()
        self._tell(self._unloading.pop(key, None), {"name": version.plan.name if version else key})
        if self._reload is not None:
            self._reload.closed(key)
            self._go_on(self._reload)

    # --- end ---------------------------------------------------------------------------------------------------------

    def end_probes(self) -> None:
        """Look into no more model files."""
        self._probes.end_all(self._processes.unwatch)

    def remove_rings(self) -> None:
        """Remove every model's segments; all processes have ended."""
        for version in self._models.values():
            version.remove_rings()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _load_all(self, models: Mapping[str, ModelConfig], reload: Reload) -> None:
        for name, config in models.items():
            try:
                self._load(name, config, None)
            except InferError as error:
                reload.refuse(name, str(error))

    def _go_on(self, reload: Reload) -> None:
        """Models of a reload have come to an end: see to those that waited for it."""
        for name in reload.take_leaving():
            version = self._served(name)
            if version is not None:  # nobody has unloaded it meanwhile
                reload.closes(name, version.plan.key)
                self._unload(name, None)
        self._load_all(reload.take_postponed(), reload)

    def _add(self, version: ModelVersion, *, running: bool = False) -> None:
        """Make room for a model and start its instances; it is served once they are up."""
        key = version.plan.key
        self._models[key] = version
        self._versions[version.plan.name] = version.plan.version
        version.create_rings()
        if running:
            self._dispatcher.send(PrepareModel(version.plan))
        for slot in self._specs.instances(version.plan):
            version.slots.append(slot)
            self._processes.start_child(slot)

    def _serve(self, version: ModelVersion) -> None:
        """Let jobs of its name go to this version; an older one takes no more and closes when it is done."""
        for older in self._models.values():
            if older.plan.name == version.plan.name and older is not version and older.serving:
                older.closing = True
        version.serving = True
        self._dispatcher.send(OpenModel(version.plan))

    def _served(self, name: str) -> ModelVersion | None:
        """What is served under a name."""
        versions = (version for version in self._models.values() if version.plan.name == name)
        return next((version for version in versions if version.serving and not version.closing), None)

    def _load_again(self, name: str, query: int) -> None:
        """Look at the file of a model again, of one that is served or that the configuration names."""
        current = self._served(name)
        config = current.config if current is not None else (self._config.models or zoo_models()).get(name)
        if config is None:
            raise UnknownModel(f"no model {name!r} is served or configured")
        self._load(name, config, query)

    def _load(self, name: str, config: ModelConfig, query: int | None) -> None:
        if name in self._probes.names or any(
            version.plan.name == name and not version.serving for version in self._models.values()
        ):
            raise BadInput(f"model {name!r} is being loaded already")
        current = self._served(name)
        settings = changed_settings(current.config, config) if current is not None else ()
        known = ""
        if current is not None and not settings and not current.failed and Path(current.plan.spec.path).exists():
            in_place = current.plan.spec.path == current.config.path  # what is served there is what the path means
            known = current.plan.spec.digest if not in_place or config.path == current.config.path else ""
        self._probes.start(LoadRequest(name, config, query, known, settings))

    def _on_probed(self, probing: Probing, found: Found) -> None:
        request = probing.request
        self._processes.unwatch(probing.process.connection.fileno())
        try:
            current = self._served(request.name)
            if isinstance(found, Exception):
                self._refuse(request, found)
            elif found is not None:
                self._take(request, found, current)
            elif current is not None:
                self._became(request.name, request.query, "unchanged", current)
        finally:
            self._probes.end(probing)
        if found is None and current is None:  # unloaded while it was looked into
            self._load(request.name, request.config, request.query)
        self._processes.report()

    def _take(self, request: LoadRequest, found: ModelSpec, current: ModelVersion | None) -> None:
        spec = self._store.keep(found)
        try:
            number = self._versions.get(request.name, 0) + 1
            plan = plan_model(
                self._config, request.config, spec, self._mark.segment_name, self._plan.decode_workers,
                self._plan.postprocess_workers, number,
            )  # fmt: skip
        except (InferError, ConfigError) as error:
            self._store.release(spec)
            self._refuse(request, error)
            return
        version = ModelVersion(plan, request.config, query=request.query)
        if current is not None:
            change = change_in_words(current.plan.spec.digest, spec.digest, request.settings)
            version.became = f"changed ({change})"
        try:
            self._add(version, running=True)
        except ConfigError as error:
            self._remove(version)
            self._refuse_for_now(request, error)

    def _became(self, name: str, query: int | None, became: str, version: ModelVersion) -> None:
        """A model that was to be loaded is served: say what has become of it, whoever asked."""
        if query is None and self._reload is not None:
            self._reload.note(name, became)
            self._go_on(self._reload)
        self._tell(query, version.loaded(became))

    def _refuse(self, request: LoadRequest, error: Exception) -> None:
        if request.query is None and self._reload is not None:
            self._reload.refuse(request.name, str(error))  # said once, with what became of the others
            self._go_on(self._reload)
        else:
            log.warning("%s", error)
        self._tell(request.query, error)

    def _give_up(self, version: ModelVersion, why: str) -> None:
        """A model that was being loaded cannot be served; what is served goes on."""
        self._remove(version)
        self._dispatcher.send(CloseModel(version.plan.key))
        request = LoadRequest(version.plan.name, version.config, version.query)
        self._refuse_for_now(request, ModelRejected(f"model {version.plan.name!r} cannot be loaded: {why}"))

    def _refuse_for_now(self, request: LoadRequest, error: Exception) -> None:
        """A model cannot be loaded, which may be for want of room: try again when models that go have gone."""
        if request.query is None and self._reload is not None and self._reload.postpone(request.name):
            log.info("%s; it is tried again when the models that are to go have closed", error)
            self._go_on(self._reload)
        else:
            self._refuse(request, error)

    def _unload(self, name: str, query: int | None) -> None:
        for version in self._models.values():
            if version.plan.name == name and version.serving and not version.closing:
                # First the door, so that no new job is let in; the last jobs inside are still answered.
                self._gateway.send(ModelClosed(name))
                version.closing = True
                self._dispatcher.send(CloseModel(version.plan.key))
                if query is not None:
                    self._unloading[version.plan.key] = query
                return
        known = ", ".join(sorted(self.names)) or "none"
        raise UnknownModel(f"no model {name!r} is served; served are: {known}")

    def _remove(self, version: ModelVersion) -> None:
        """End a model's instances, which hold no lease, and remove its segments."""
        self._models.pop(version.plan.key, None)
        for slot in version.slots:
            self._processes.stop_child(slot)
        version.remove_rings()
        self._store.release(version.plan.spec)

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
