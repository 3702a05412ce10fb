"""A session of ONNX Runtime on an NVIDIA GPU, with copies of its own.

ONNX Runtime by itself copies inputs and outputs through pageable memory and waits for the GPU after each step. Here a
run is put into three streams that go on side by side, as the hardware does: copies to the GPU out of page-locked
memory, the model, copies back. Events put the parts of one run in order, and keep a run from memory on the GPU that an
earlier one still needs:

    to the GPU      | batch 1 | batch 2 |         | batch 3 |
    the model       |         | batch 1           | batch 2           | batch 3
    to the host     |                             | batch 1 |         | batch 2 |

Tensors on the GPU stay where they are, as CUDA graphs need it: one set for each batch size and for each run that may be
under way at once.

Each change of the batch size takes ONNX Runtime a tenth of a second and more, since it has cuDNN plan every convolution
anew and keeps one plan. A graph is a run that was planned already. So there is a graph for each of a few sizes, and a
smaller batch is filled up to the next of them with rows whose results nobody reads; a model that cannot be recorded,
because it does not run on the GPU throughout, is always run in its largest batch.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from parallel_infer.errors import Dropped, InferError
from parallel_infer.inference.engines import Array, BoundRun, Stop, address_of
from parallel_infer.inference.engines.cuda_runtime import CudaRuntime
from parallel_infer.inference.engines.onnx_runtime import OrtEngine
from parallel_infer.inference.options import SessionConfig
from parallel_infer.inference.ort import ort
from parallel_infer.inference.providers import Choice

logger = logging.getLogger(__name__)

_ALIKE = 0.02  # relative difference up to which two runs say the same: TensorFloat-32, and sums in another order
_GRAPHS_REFUSED = "graph capture"  # in what ONNX Runtime says of a model that it cannot record
_AT_ONCE = 2  # runs: one that computes, one that is copied
Shapes = tuple[tuple[str, tuple[int, ...]], ...]


class CudaEngine(OrtEngine):
    """A session on CUDA. The first run of each batch size is compared with a plain one before it is relied on."""

    def __init__(
        self,
        model: str | bytes,
        config: SessionConfig,
        choice: Choice,
        runtime: CudaRuntime | None = None,
    ) -> None:
        self._runtime = runtime or CudaRuntime(config.device)
        self._stream, self._upload, self._download = (self._runtime.stream() for _ in range(3))
        self._device = config.device
        self._has_graphs = config.cuda_graphs
        try:
            super().__init__(model, config, choice, self._stream)
        except Exception as error:  # exceptions of ONNX Runtime share no base class of their own
            if not (config.cuda_graphs and _GRAPHS_REFUSED in str(error)):
                raise
            logger.warning("no CUDA graphs: this model has operators that do not run on the GPU; it runs slower so")
            self._has_graphs = False
            super().__init__(model, replace(config, cuda_graphs=False), choice, self._stream)
        sizes = {1, *config.batches} if config.batches and self.signature.has_open_batch else set()
        self._sizes = sorted(sizes) if self._has_graphs else sorted(sizes)[-1:]
        self._buffers: dict[tuple[int, Shapes], _Buffers] = {}
        self._locked: list[Array] = []
        self._is_plain = False
        # A run that is not a graph is over when ONNX Runtime returns, and pageable memory is not copied beside others.
        self._overlaps = config.cuda_overlap and config.page_locked and self._has_graphs
        self._under_way = 0  # runs that were begun and not waited for
        self._running = threading.Lock()  # ONNX Runtime records a graph for each thread, and bears no call beside it

    @property
    def at_once(self) -> int:
        return _AT_ONCE if self._overlaps and not self._is_plain else 1

    def is_lost(self) -> bool:
        return self._runtime.is_lost()

    def lock_pages(self, arrays: Iterable[Array]) -> None:
        """Keep memory that runs will use from being moved, so that the GPU reads and writes it by itself.

        Where the system refuses, copies take longer and all else is the same.
        """
        for array in arrays:
            try:
                self._runtime.lock_pages(address_of(array), array.nbytes)
            except InferError as error:
                logger.warning("memory is not page-locked, copies to the GPU take longer: %s", error)
                self._overlaps = False
                return
            self._locked.append(array)

    def close(self) -> None:
        """Give up page-locked memory, which otherwise could not be unmapped."""
        self._settle()
        while self._locked:
            self._runtime.unlock_pages(address_of(self._locked.pop()))

    def run(self, inputs: Mapping[str, Array], stop: Stop) -> list[Array]:
        with self._running:  # also a plain run must not fall into the recording of a graph
            return super().run(inputs, stop)

    def bind(
        self, inputs: Mapping[str, Array], fixed: Mapping[str, Array], fresh: Sequence[str], buffer_set: int = 0
    ) -> BoundRun:
        if fresh or self._is_plain or not self._can_bind(inputs, fixed):
            return super().bind(inputs, fixed, fresh)
        shapes = tuple((name, self._filled_up(array.shape)) for name, array in (*inputs.items(), *fixed.items()))
        key = buffer_set, shapes
        if key not in self._buffers:
            with self._running:
                if self._under_way:  # a graph is recorded while the GPU does nothing else
                    return super().bind(inputs, fixed, fresh)
                self._buffers[key] = self._checked(self._made(shapes, inputs, fixed), inputs, fixed)
            if self._is_plain:
                return super().bind(inputs, fixed, fresh)
        return CudaBoundRun(self, self._buffers[key], inputs, fixed)

    def begin(self, buffers: _Buffers, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Callable[[], None]:
        """Put one run into the streams. What this returns waits for its end, once and in any thread.

        The thread must be the one that bound the run: ONNX Runtime keeps graphs by thread.
        """
        with self._running:
            self._enqueue(buffers, inputs, outputs)
            self._under_way += 1
        return lambda: self._finish(buffers)

    def execute(self, buffers: _Buffers, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """One run, from its beginning to its end."""
        self._enqueue(buffers, inputs, outputs)
        self._runtime.wait_event(buffers.downloaded)

    def run_exclusively(
        self, buffers: _Buffers, inputs: Mapping[str, Array], outputs: Mapping[str, Array], stop: Stop
    ) -> None:
        with self._running, stop.calling(buffers.terminate):
            if stop.is_set:
                raise Dropped("the run was stopped before it began")
            try:
                self.execute(buffers, inputs, outputs)
            finally:
                buffers.options.terminate = False

    def _enqueue(self, buffers: _Buffers, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        runtime = self._runtime
        try:
            runtime.follow(self._upload, buffers.computed)  # first, because the last run reads its inputs until then
            for name, array in inputs.items():
                runtime.copy_to_device(buffers.inputs[name].data_ptr(), address_of(array), array.nbytes, self._upload)
            runtime.record(buffers.uploaded, self._upload)
            runtime.follow(self._stream, buffers.uploaded)
            runtime.follow(self._stream, buffers.downloaded)  # the outputs of the last run
            self.session.run_with_iobinding(buffers.io, buffers.options)
            runtime.record(buffers.computed, self._stream)
            runtime.follow(self._download, buffers.computed)
            for name, array in outputs.items():
                runtime.copy_to_host(address_of(array), buffers.outputs[name].data_ptr(), array.nbytes, self._download)
            runtime.record(buffers.downloaded, self._download)
        except BaseException:
            self._settle()  # then the caller's memory is the caller's again
            raise

    def _finish(self, buffers: _Buffers) -> None:
        try:
            self._runtime.wait_event(buffers.downloaded)
        finally:
            with self._running:
                self._under_way -= 1

    def _settle(self) -> None:
        """Wait until nothing of earlier runs is under way, whatever became of it."""
        for stream in (self._upload, self._stream, self._download):
            with contextlib.suppress(InferError):
                self._runtime.wait(stream)

    def device_tensor(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """Memory on the GPU, whatever is in it."""
        return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype.type, self._runtime.kind, self._device)

    def run_options(self, number: int) -> ort.RunOptions:
        """Options of the runs of one batch size."""
        options = ort.RunOptions()
        # A graph per batch size; without `cuda_graphs` ONNX Runtime ignores the number.
        options.add_run_config_entry("gpu_graph_id", str(number))
        if self._has_graphs:
            # A graph is repeated without a wait of its own. Other runs need theirs: without it ONNX Runtime keeps the
            # page-locked buffers of all operators until the session ends, and then aborts the process.
            options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        return options

    def _filled_up(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that a batch of this shape is computed in."""
        size = next((size for size in self._sizes if size >= shape[0]), None) if self._sizes else None
        return shape if size is None else (size, *shape[1:])

    def _made(self, of: Shapes, inputs: Mapping[str, Array], fixed: Mapping[str, Array]) -> _Buffers:
        shapes = dict(of)
        tensors = {
            name: self.device_tensor(shapes[name], array.dtype) for name, array in (*inputs.items(), *fixed.items())
        }
        for name, array in inputs.items():  # rows that nobody fills are zeros, not what lay there
            zeros = np.zeros(shapes[name], array.dtype)
            self._runtime.copy_to_device(tensors[name].data_ptr(), address_of(zeros), zeros.nbytes, self._stream)
            self._runtime.wait(self._stream)
        ins, outs = ({name: tensors[name] for name in names} for names in (inputs, fixed))
        return _Buffers(self, ins, outs, len(self._buffers), self._runtime)

    def _can_bind(self, inputs: Mapping[str, Array], fixed: Mapping[str, Array]) -> bool:
        return all(array.size for array in (*inputs.values(), *fixed.values()))

    def _checked(self, buffers: _Buffers, inputs: Mapping[str, Array], fixed: Mapping[str, Array]) -> _Buffers:
        """Run these inputs both ways; what differs or fails is not used again."""
        plain = dict(zip((t.name for t in self.signature.outputs), super().run(inputs, Stop()), strict=True))
        found = {name: np.empty_like(array) for name, array in fixed.items()}
        try:
            self.execute(buffers, inputs, found)
            agree = all(_alike(array, plain[name]) for name, array in found.items())
            reason = "" if agree else "its answers differ from those of a plain run"
        except Exception as error:  # exceptions of ONNX Runtime share no base class of their own
            reason = str(error)
        if reason:
            logger.warning("copies and graphs of our own are not used on this GPU: %s", reason)
            self._is_plain = True
        return buffers


class CudaBoundRun:
    """Arrays of the host and the tensors on the GPU that they are copied to and from."""

    __slots__ = ("_buffers", "_engine", "_fixed", "_inputs")

    def __init__(
        self, engine: CudaEngine, buffers: _Buffers, inputs: Mapping[str, Array], fixed: Mapping[str, Array]
    ) -> None:
        self._engine = engine
        self._buffers = buffers
        self._inputs = inputs
        self._fixed = fixed

    def run(self, stop: Stop, *, prompt: bool) -> list[Array]:
        self._engine.run_exclusively(self._buffers, self._inputs, self._fixed, stop)
        return []

    def begin(self) -> Callable[[], None]:
        """Begin a run beside those under way in other buffer sets; what this returns waits for its end."""
        return self._engine.begin(self._buffers, self._inputs, self._fixed)


class _Buffers:
    """Tensors on the GPU for one batch size, bound once, the options of their runs, and how far the last one is."""

    def __init__(
        self,
        engine: CudaEngine,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
        number: int,
        runtime: CudaRuntime,
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.uploaded, self.computed, self.downloaded = (runtime.event() for _ in range(3))
        self.io = engine.session.io_binding()
        for name, value in inputs.items():
            self.io.bind_ortvalue_input(name, value)
        for name, value in outputs.items():
            self.io.bind_ortvalue_output(name, value)
        self.options = engine.run_options(number)

    def terminate(self) -> None:
        self.options.terminate = True


def _alike(found: Array, expected: Array) -> bool:
    if found.shape != expected.shape:
        return False
    if found.dtype.kind != "f":
        return bool(np.mean(found != expected) <= _ALIKE)  # a rounding more or less may change a class or an index
    scale = float(np.abs(expected).max(initial=0.0)) or 1.0
    return bool(np.abs(found - expected).max(initial=0.0) <= _ALIKE * scale)
