"""The host as a GPU: streams and events of CUDA, in which everything happens as late as may be.

A copy or a run is done only when somebody waits for it, or for what follows it. So memory that is used again too early,
or read before anybody waited, has wrong contents, each time. With `early`, copies to the GPU and runs go ahead as far
as their events let them, which shows what is overwritten too early there.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

from parallel_infer.errors import InferError
from parallel_infer.inference.engines.cuda import CudaEngine
from parallel_infer.inference.engines.cuda_runtime import CudaRuntime
from parallel_infer.inference.options import SessionConfig
from parallel_infer.inference.providers import ON_CPU

STREAM = 4711  # where the model runs; copies have the next two
Mark = tuple[int, int]  # a stream, and how much of it is done when an event is reached
Operation = tuple[Mark | None, Callable[[], None]]


class HostRuntime(CudaRuntime):
    """Memory of the host as memory of a GPU. `broken` names a call that fails when it is next done."""

    kind = "cpu"

    def __init__(self, *, refuses_to_lock: bool = False, spoils: bool = False, early: bool = False) -> None:
        self.calls: list[str] = []
        self.targets: set[int] = set()  # addresses of memory on the GPU
        self.locked: dict[int, int] = {}
        self.broken = ""
        self.lost = False
        self._streams: list[list[Operation]] = []
        self._done: list[int] = []
        self._marks: list[Mark] = []  # by event
        self._lock = threading.RLock()
        self._refuses_to_lock = refuses_to_lock
        self._spoils = spoils
        self._early = early

    def stream(self) -> int:
        self._streams.append([])
        self._done.append(0)
        return STREAM + len(self._streams) - 1

    def event(self) -> int:
        self._marks.append((STREAM, 0))
        return len(self._marks) - 1

    def record(self, event: int, stream: int) -> None:
        with self._lock:
            self._marks[event] = stream, len(self._streams[stream - STREAM])

    def follow(self, stream: int, event: int) -> None:
        mark = self._marks[event]
        self._put(stream, mark, lambda: self._advance(*mark))

    def wait_event(self, event: int) -> None:
        self.calls.append("wait")
        self._advance(*self._marks[event])

    def wait(self, stream: int) -> None:
        self._advance(stream, len(self._streams[stream - STREAM]))

    def is_lost(self) -> bool:
        return self.lost

    def copy_to_device(self, target: int, source: int, size: int, stream: int) -> None:
        self.calls.append("to device")
        self.targets.add(target)
        self._put(stream, None, lambda: self._copy_now("to device", target, source, size))

    def copy_to_host(self, target: int, source: int, size: int, stream: int) -> None:
        self.calls.append("to host")
        self._put(stream, None, lambda: self._copy_now("to host", target, source, size))

    def compute(self, run: Callable[[], None]) -> None:
        self._put(STREAM, None, run)

    def lock_pages(self, address: int, size: int) -> None:
        if self._refuses_to_lock:
            raise InferError("CUDA: operation not supported")
        assert address not in self.locked
        self.locked[address] = size

    def unlock_pages(self, address: int) -> None:
        del self.locked[address]

    def _copy_now(self, name: str, target: int, source: int, size: int) -> None:
        if self.broken == name:
            self.broken = ""
            raise InferError(f"CUDA: no copy {name}")
        ctypes.memmove(target, source, size)
        if self._spoils and name == "to host":
            ctypes.memset(target, 0x41, size)

    def _put(self, stream: int, after: Mark | None, operation: Callable[[], None]) -> None:
        with self._lock:
            self._streams[stream - STREAM].append((after, operation))
            if self._early:
                for ahead in (STREAM + 1, STREAM, STREAM + 1):
                    self._advance_freely(ahead)

    def _advance_freely(self, stream: int) -> None:
        place = stream - STREAM
        for after, operation in self._streams[place][self._done[place] :]:
            if after is not None and self._done[after[0] - STREAM] < after[1]:
                return
            self._done[place] += 1
            operation()

    def _advance(self, stream: int, count: int) -> None:
        place = stream - STREAM
        with self._lock:
            while self._done[place] < count:
                _, operation = self._streams[place][self._done[place]]
                self._done[place] += 1
                operation()


class HostSession:
    """A session whose bound runs go into the stream; it notes the CUDA graph of each."""

    def __init__(self, session: Any, runtime: HostRuntime) -> None:
        self._session = session
        self._runtime = runtime
        self.graphs: list[str] = []
        self.fails = False  # the next run

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        graph = options.get_run_config_entry("gpu_graph_id")
        if graph == "-1":  # ONNX Runtime's own way, which waits
            self._session.run_with_iobinding(binding, options)
            return
        self.graphs.append(graph)
        if self.fails:
            self.fails = False
            raise RuntimeError("this run fails")
        self._runtime.compute(lambda: self._session.run_with_iobinding(binding, options))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def host_engine(model: bytes, runtime: HostRuntime, **values: Any) -> CudaEngine:
    """An engine on that GPU; its `session` is a HostSession."""
    made = CudaEngine(model, SessionConfig(provider="cpu", threads=1, **values), ON_CPU, runtime)
    made.session = HostSession(made.session, runtime)
    return made
