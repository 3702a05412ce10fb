"""What models have on this machine: processes that look into their files, the run's copies of these, segments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from parallel_infer.config.schema import ServerConfig
from parallel_infer.errors import ConfigError, InferError
from parallel_infer.ipc.channel import Watch
from parallel_infer.ipc.messages import ModelPlan
from parallel_infer.model_files.store import CopyOrder, ModelStore
from parallel_infer.model_spec import ModelSpec
from parallel_infer.process.spawn import Process
from parallel_infer.shm.ring import Ring
from parallel_infer.shm.segment import lent_segments, remove_all
from parallel_infer.supervisor.outside import Found, LoadRequest
from parallel_infer.supervisor.probes import probed, start_probe


@dataclass(frozen=True)
class _Probing:
    request: LoadRequest
    process: Process
    order: CopyOrder


class ModelResources:
    """See `outside.Resources`."""

    def __init__(self, config: ServerConfig, store: ModelStore, watch: Watch, lent: str) -> None:
        """`lent` is what the names of segments begin with that the gateway lends."""
        self._config = config
        self._lent = lent
        self._store = store
        self._watch = watch
        self._probing: dict[str, _Probing] = {}  # by model
        self._rings: dict[str, list[Ring]] = {}  # by key

    def probe(self, request: LoadRequest) -> None:
        """Start a process that looks into a file."""
        order = self._store.order()
        process = start_probe(request.name, request.config, self._config, order, request.known)
        self._probing[request.name] = _Probing(request, process, order)
        self._watch.add(process.connection.fileno())

    def found(self, there: Iterable[object]) -> Iterator[tuple[LoadRequest, Found]]:
        """What those have found that said something on the descriptors `there`; each is to be ended."""
        said = set(there)
        for probing in list(self._probing.values()):
            if probing.process.connection.fileno() in said:
                yield probing.request, _found(probing)

    def end_probe(self, name: str) -> None:
        """Look into a file no longer, and remove the copy that nobody has taken in use."""
        probing = self._probing.pop(name)
        self._watch.remove(probing.process.connection.fileno())
        probing.process.kill()
        probing.process.close()
        self._store.discard(probing.order)

    def keep(self, spec: ModelSpec) -> ModelSpec:
        """Take the copy of a model file in use."""
        return self._store.keep(spec)

    def release(self, spec: ModelSpec) -> None:
        """A model is served no more."""
        self._store.release(spec)

    def has_file(self, spec: ModelSpec) -> bool:
        """Whether the file that a model is served from is still there."""
        return Path(spec.path).exists()

    def create_rings(self, plan: ModelPlan) -> None:
        """Create and reserve a model's segments. Raises ConfigError when memory is short."""
        rings = self._rings[plan.key] = []
        for spec in (plan.rows, plan.outputs):
            rings.append(Ring.create(spec))

    def remove_lent(self, gateway: int) -> None:
        """Remove the segments that a gateway of this epoch lent; who has one mapped keeps it."""
        remove_all(lent_segments(self._lent, gateway))

    def remove_rings(self, key: str) -> None:
        """Remove a model's segments."""
        for ring in self._rings.pop(key, ()):
            ring.close()
            ring.unlink()

    def remove_all(self) -> None:
        """Remove every model's segments; all processes have ended."""
        for key in list(self._rings):
            self.remove_rings(key)

    def end_probes(self) -> None:
        """Look into no more files."""
        for name in list(self._probing):
            self.end_probe(name)


def _found(probing: _Probing) -> Found:
    try:
        return probed(probing.request.name, probing.process)
    except (InferError, ConfigError) as error:
        return error
