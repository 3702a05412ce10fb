"""Which models are served, which are being loaded beside them, and which are being drained. No I/O is done here."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import assert_never

import msgspec

from parallel_infer.config.schema import ModelConfig, ServerConfig
from parallel_infer.config.sources import check_model_name, model_config, zoo_models
from parallel_infer.errors import BadInput, ConfigError, InferError, ModelRejected, UnknownModel
from parallel_infer.ipc.messages import (
    CloseModel,
    LoadChain,
    LoadModel,
    Manage,
    ModelClosed,
    ModelFailed,
    ModelOpened,
    ModelReport,
    OpenModel,
    PrepareModel,
    ReloadModel,
    StopServer,
    UnloadModel,
)
from parallel_infer.model_spec import ModelSpec, is_hidden
from parallel_infer.supervisor.child_slot import ChildSlot
from parallel_infer.supervisor.child_specs import ChildSpecs
from parallel_infer.supervisor.children import Children
from parallel_infer.supervisor.model_version import ModelVersion, name_given, path_meant
from parallel_infer.supervisor.outcomes import Outcomes
from parallel_infer.supervisor.outside import Found, LoadRequest, Outside
from parallel_infer.supervisor.plan import Plan, beside, check_options, plan_model
from parallel_infer.supervisor.probes import too_slow
from parallel_infer.supervisor.reload import Reload, change_in_words, changed_settings
from parallel_infer.supervisor.served_chains import ServedChains

log = logging.getLogger(__name__)


class ModelRegistry:
    """Loads, serves, reloads and unloads models; tells the dispatcher and the gateway."""

    def __init__(
        self,
        config: ServerConfig,
        plan: Plan,
        specs: ChildSpecs,
        children: Children,
        outside: Outside,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._plan = config, plan
        self._specs, self._children = specs, children
        self._dispatcher, self._gateway = outside.dispatcher, outside.gateway
        self._resources = outside.resources
        self._outcomes = Outcomes(outside.gateway)
        self._clock = clock
        self._starting = True  # no door was opened yet
        self._models: dict[str, ModelVersion] = {}  # by key
        self._versions: dict[str, int] = {}  # the last one of each name
        self._probing: dict[str, tuple[LoadRequest, float]] = {}  # by name; when it has taken too long
        self._unloading: dict[str, tuple[int | None, list[str]]] = {}  # key -> who asked for it, and warnings
        self.chains = ServedChains(config.chain, config.max_objects, outside.gateway, self, check_options)

    @property
    def specs(self) -> dict[str, ModelSpec]:
        """The models that are served, by name, but for those that are there for doors alone."""
        served = [version.plan for version in self._models.values() if version.serving and not version.closing]
        return {plan.name: plan.spec for plan in served if not is_hidden(plan.name)}

    @property
    def names(self) -> set[str]:
        """The names of all models, of those that are being loaded and closed as well."""
        return {*self._probing, *(version.plan.name for version in self._models.values())}

    @property
    def deadlines(self) -> list[float]:
        """When model files that are being looked into have taken too long."""
        return [deadline for _, deadline in self._probing.values()]

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
        self.chains.introduce()
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
        self._go_on()
        return True

    def exhausted(self, slot: ChildSlot) -> None:
        """An infer worker has died too often: its model is unavailable where it was the last one."""
        version = self._models.get(slot.model)
        if version is not None and not any(other.up for other in version.slots):
            version.failed = True
            self._dispatcher.send(ModelFailed(version.plan.key, "its workers keep dying"))

    # --- requests ----------------------------------------------------------------------------------------------------

    def manage(self, message: Manage) -> None:
        """A client wants something loaded, unloaded, or the server stopped, which is not done here."""
        try:
            match message:
                case _ if (done := self.chains.manage(message)) is not None:
                    self._outcomes.tell(message.query, done)
                case LoadModel():
                    check_model_name(name_given(message.name, message.path))
                    path, options = path_meant(message.path, self._served), msgspec.msgpack.decode(message.options)
                    self._load(message.name, model_config(path, options), message.query)
                case ReloadModel():
                    self._load_again(message.name, message.query)
                case UnloadModel():
                    self._unload(message.name, message.query)
                case StopServer() | LoadChain():
                    self._outcomes.tell(message.query, {})
                case _:
                    assert_never(message)
        except (InferError, ConfigError) as error:
            self._outcomes.tell(message.query, error)

    def reload(self, models: dict[str, ModelConfig]) -> Reload:
        """Make the served models those of `models`: load what is new or differs, then unload what is not there."""
        reload = self._outcomes.begin_reload(models, [name for name in self.specs if name not in models])
        self._load_all(models, reload)
        self._go_on()
        return reload

    def probed(self, request: LoadRequest, found: Found) -> None:
        """What a process has found out that was to look into a model file."""
        try:
            current = self._served(request.name)
            if isinstance(found, Exception):
                self._outcomes.refused(request.name, request.query, found)
            elif found is not None:
                self._take(request, found, current)
            elif current is not None:
                self._outcomes.served(request.name, request.query, "unchanged", current)
        finally:
            del self._probing[request.name]
            self._resources.end_probe(request.name)
        if found is None and current is None:  # unloaded while it was looked into
            self._load(request.name, request.config, request.query)
        self._go_on()

    def on_timer(self, now: float) -> bool:
        """Give up on model files that take too long; whether there was one."""
        late = [request for request, deadline in self._probing.values() if deadline <= now]
        for request in late:
            self.probed(request, ModelRejected(f"model {request.name!r}: {too_slow(self._config)}"))
        return bool(late)

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
            self._outcomes.served(version.plan.name, version.query, version.became, version, self.chains.check())
            self._go_on()

    def closed(self, key: str) -> None:
        """The last job of a model that takes no more is answered."""
        version = self._models.get(key)
        if version is not None and version.closing:
            self._remove(version)
            log.info("model %s: version %d is closed", version.plan.name, version.plan.version)
        query, warnings = self._unloading.pop(key, (None, []))
        self._outcomes.tell(query, {"name": version.plan.name if version else key, "warnings": warnings})
        if self._outcomes.reload is not None:
            self._outcomes.reload.closed(key)
        self._go_on()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _load_all(self, models: Mapping[str, ModelConfig], reload: Reload) -> None:
        for name, config in models.items():
            try:
                self._load(name, config, None)
            except InferError as error:
                reload.refuse(name, str(error))

    def _go_on(self) -> None:
        """Models of a reload may have come to an end: see to those that waited for it."""
        reload = self._outcomes.reload
        if reload is None:
            return
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
        self._resources.create_rings(version.plan)
        if running:
            self._dispatcher.send(PrepareModel(version.plan))
        for slot in self._specs.instances(version.plan):
            version.slots.append(slot)
            self._children.add(slot, self._clock())

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
        self.chains.check_free(name)
        if name in self._probing or any(
            version.plan.name == name and not version.serving for version in self._models.values()
        ):
            raise BadInput(f"model {name!r} is being loaded already")
        current = self._served(name)
        settings = changed_settings(current.config, config) if current is not None else ()
        is_same = current is not None and not settings and self._resources.has_file(current.plan.spec)
        known = current.digest_known(config) if current is not None and is_same else ""
        request = LoadRequest(name, config, query, known, settings)
        self._resources.probe(request)
        self._probing[name] = request, self._clock() + self._config.start_timeout_ms / 1000

    def _take(self, request: LoadRequest, found: ModelSpec, current: ModelVersion | None) -> None:
        spec = self._resources.keep(found)
        try:
            number = self._versions.get(request.name, 0) + 1
            before = current.plan if current is not None else None
            chosen = beside(self._config, before, request.settings)
            plan = plan_model(self._config, request.config, spec, *self._plan.around, number, *chosen)
        except (InferError, ConfigError) as error:
            self._resources.release(spec)
            self._outcomes.refused(request.name, request.query, error)
            return
        version = ModelVersion(plan, request.config, query=request.query)
        if current is not None:
            change = change_in_words(current.plan.spec.digest, spec.digest, request.settings)
            version.became = f"changed ({change})"
        try:
            self._add(version, running=True)
        except ConfigError as error:
            self._remove(version)
            self._outcomes.found_no_room(request.name, request.query, error)

    def _give_up(self, version: ModelVersion, why: str) -> None:
        """A model that was being loaded cannot be served; what is served goes on."""
        self._remove(version)
        self._dispatcher.send(CloseModel(version.plan.key))
        name = version.plan.name
        self._outcomes.found_no_room(name, version.query, ModelRejected(f"model {name!r} cannot be loaded: {why}"))

    def _unload(self, name: str, query: int | None) -> None:
        version = self._served(name)
        if version is None:
            known = ", ".join(sorted((*self.specs, *self.chains.names))) or "none"
            raise UnknownModel(f"no model {name!r} is served; served are: {known}")
        # First the door, so that no new job is let in; the last jobs inside are still answered.
        self._gateway.send(ModelClosed(name))
        version.closing = True
        self._dispatcher.send(CloseModel(version.plan.key))
        self._unloading[version.plan.key] = query, self.chains.check()

    def _remove(self, version: ModelVersion) -> None:
        """End a model's instances, which hold no lease, and remove its segments."""
        self._models.pop(version.plan.key, None)
        for slot in version.slots:
            self._children.remove(slot)
        self._resources.remove_rings(version.plan.key)
        self._resources.release(version.plan.spec)
