"""Model files that are being looked into while the server runs, each by a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from parallel_infer.config.schema import ModelConfig, ServerConfig
from parallel_infer.errors import ConfigError, InferError, ModelRejected
from parallel_infer.model_files.store import CopyOrder, ModelStore
from parallel_infer.model_spec import ModelSpec
from parallel_infer.process.spawn import Process
from parallel_infer.supervisor.plan import probed, start_probe, too_slow


@dataclass(frozen=True)
class LoadRequest:
    """A model that somebody wants served."""

    name: str
    config: ModelConfig
    query: int | None = None  # the client's request that waits for it; None: it was read from the configuration
    known: str = ""  # the digest of what is served under this name and these settings
    settings: tuple[str, ...] = ()  # that are others than those of what is served


@dataclass(frozen=True)
class Probing:
    """A model file that is being looked into."""

    request: LoadRequest
    process: Process
    order: CopyOrder
    deadline: float


Found = ModelSpec | None | InferError | ConfigError  # None: it is what is known


class Probes:
    """All that are under way."""

    def __init__(self, config: ServerConfig, store: ModelStore, watch: Callable[[int], None]) -> None:
        """`watch` is told the descriptor of each process, so that `results` is called when it is readable."""
        self._config = config
        self._store = store
        self._watch = watch
        self._running: list[Probing] = []

    @property
    def names(self) -> set[str]:
        """The models that are looked into."""
        return {probing.request.name for probing in self._running}

    @property
    def deadlines(self) -> list[float]:
        """When they have taken too long."""
        return [probing.deadline for probing in self._running]

    def start(self, request: LoadRequest) -> None:
        """Look into a file."""
        order = self._store.order()
        process = start_probe(request.name, request.config, self._config, order, request.known)
        deadline = time.monotonic() + self._config.start_timeout_ms / 1000
        self._running.append(Probing(request, process, order, deadline))
        self._watch(process.connection.fileno())

    def results(self, there: Iterable[object]) -> list[tuple[Probing, Found]]:
        """What those have found that said something on the descriptors `there`; each must be ended."""
        said = set(there)
        ready = [probing for probing in self._running if probing.process.connection.fileno() in said]
        return [(probing, self._found(probing)) for probing in ready]

    def late(self, now: float) -> list[tuple[Probing, Found]]:
        """Those that take too long; each must be ended."""
        return [
            (probing, ModelRejected(f"model {probing.request.name!r}: {too_slow(self._config)}"))
            for probing in self._running
            if probing.deadline <= now
        ]

    def end(self, probing: Probing) -> None:
        """End its process, and remove the copy that nobody has taken in use."""
        self._running.remove(probing)
        probing.process.kill()
        probing.process.close()
        self._store.discard(probing.order)

    def end_all(self, ignore: Callable[[int], None]) -> None:
        """Look into no more model files."""
        for probing in list(self._running):
            ignore(probing.process.connection.fileno())
            self.end(probing)

    @staticmethod
    def _found(probing: Probing) -> Found:
        try:
            return probed(probing.request.name, probing.process)
        except (InferError, ConfigError) as error:
            return error
