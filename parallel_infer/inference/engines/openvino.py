"""A model in OpenVINO's own runtime.

OpenVINO computes well on every x86-64 processor, in bfloat16 at twice the speed where the processor has it, but its
plugin for ONNX Runtime offers it on Intel's only. Elsewhere the same library is called directly: inputs are read and
outputs written where they lie, as with ONNX Runtime.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import EllipsisType
from typing import Any, NamedTuple

import numpy as np

from parallel_infer.errors import Dropped, InferError
from parallel_infer.inference.engines import Array, Stop
from parallel_infer.inference.engines.onnx_runtime import OrtEngine
from parallel_infer.inference.options import GraphOptimization, SessionConfig
from parallel_infer.inference.providers import ON_CPU, Choice, openvino_device_options

# A batch size and the outputs that have memory of the caller. A request belongs to the graph of one size, and it does
# not forget memory it was given, it only takes other memory.
Kind = tuple[int | None, frozenset[str]]
Rows = slice | EllipsisType


class OpenVinoEngine:
    """A model compiled by OpenVINO. Raises its exceptions, and those of ONNX Runtime, which reads the model first."""

    def __init__(self, model: str | bytes, config: SessionConfig, choice: Choice) -> None:
        # What tensors are called and which of their dimensions are the same number is lost on OpenVINO.
        plain = SessionConfig(threads=1, optimization=GraphOptimization.NONE, cpu_arena=False)
        reader = OrtEngine(model, plain, ON_CPU)
        self.signature = reader.signature
        self._metadata = reader.metadata
        del reader
        self._openvino = _imported()
        self._models = self._compiled(model, config, choice)  # by batch size, or one alone under None that takes any
        self._inputs = {tensor.name: place for place, tensor in enumerate(self.signature.inputs)}
        self._outputs = {tensor.name: place for place, tensor in enumerate(self.signature.outputs)}
        self._idle: dict[Kind, list[Any]] = {}

    @property
    def at_once(self) -> int:
        return 1

    @property
    def metadata(self) -> dict[str, str]:
        return dict(self._metadata)

    def run(self, inputs: Mapping[str, Array], stop: Stop) -> list[Array]:
        contiguous = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        return self.bind(contiguous, {}, tuple(self._outputs)).run(stop, prompt=True)

    def bind(
        self, inputs: Mapping[str, Array], fixed: Mapping[str, Array], fresh: Sequence[str], buffer_set: int = 0
    ) -> OpenVinoBoundRun:
        return OpenVinoBoundRun(self, inputs, fixed, fresh)

    def lock_pages(self, arrays: Iterable[Array]) -> None:
        """Nothing: the processor reads memory where it lies."""

    def is_lost(self) -> bool:
        return False

    def close(self) -> None:
        """Forget the requests, which keep the memory they last used."""
        self._idle.clear()

    def end_profile(self) -> str:
        raise InferError("OpenVINO's own runtime writes no profile")

    def tensor(self, array: Array) -> Any:
        """`array` as OpenVINO sees it, without a copy."""
        return self._openvino.Tensor(array, shared_memory=True)

    def input_place(self, name: str) -> int:
        return self._inputs[name]

    def target(self, name: str, array: Array) -> _Target:
        return _Target(name, self._outputs[name], self.tensor(array), array)

    def output_place(self, name: str) -> int:
        return self._outputs[name]

    def parts(self, inputs: Mapping[str, Array]) -> list[tuple[int | None, Rows]]:
        """The runs that make up one of these inputs: a compiled size and the rows it takes; None takes all there is."""
        if None in self._models:
            return [(None, ...)]
        parts: list[tuple[int | None, Rows]] = []
        count, first = len(next(iter(inputs.values()))), 0
        for size in sorted(self._models, key=lambda size: size or 0, reverse=True):
            while size and count - first >= size:
                parts.append((size, slice(first, first + size)))
                first += size
        return parts

    @contextmanager
    def request(self, kind: Kind) -> Iterator[Any]:
        """An inference request that nobody else uses meanwhile; making one takes longer than a small run."""
        idle = self._idle.setdefault(kind, [])
        request = idle.pop() if idle else self._models[kind[0]].create_infer_request()
        yield request  # one whose run failed is not used again
        idle.append(request)

    def _compiled(self, model: str | bytes, config: SessionConfig, choice: Choice) -> dict[int | None, Any]:
        """The graph for each of `config.batches`, or, where it does not allow that, as it is.

        Where the batch size stays open, a run takes up to a sixth longer, and the first of each size some 0.2 s.
        """
        core = self._openvino.Core()
        graph, options = core.read_model(model), openvino_device_options(config, choice)
        rows = [config.rows.get(tensor.name, tensor.dimensions[1:]) for tensor in self.signature.inputs]
        if not (
            config.batches
            and self.signature.has_open_batch
            and all(isinstance(size, int) and size > 0 for row in rows for size in row)
        ):
            return {None: core.compile_model(graph, "CPU", options)}
        models: dict[int | None, Any] = {}
        for size in {1, *config.batches}:
            sized = graph.clone()
            sized.reshape({place: [size, *row] for place, row in enumerate(rows)})
            models[size] = core.compile_model(sized, "CPU", options)
        return models


def _imported() -> Any:
    """The package without its telemetry, which would report every import to Google Analytics, unasked."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # cannot be imported: a stub is taken
    return importlib.import_module("openvino")


class OpenVinoBoundRun:
    """The tensors of each part of a run, given to whichever request is idle."""

    __slots__ = ("_engine", "_fresh", "_parts")

    def __init__(
        self, engine: OpenVinoEngine, inputs: Mapping[str, Array], fixed: Mapping[str, Array], fresh: Sequence[str]
    ) -> None:
        self._engine = engine
        self._fresh = [engine.output_place(name) for name in fresh]
        self._parts = [
            _Part(
                (size, frozenset(fixed)),
                [(engine.input_place(name), engine.tensor(array[rows])) for name, array in inputs.items()],
                [engine.target(name, a[rows]) for name, a in fixed.items()],
            )
            for size, rows in engine.parts(inputs)
        ]

    def run(self, stop: Stop, *, prompt: bool) -> list[Array]:
        fresh = [self._run_part(part, stop, prompt) for part in self._parts]
        if len(fresh) == 1:
            return fresh[0]
        return [np.concatenate(arrays) for arrays in zip(*fresh, strict=True)]

    def _run_part(self, part: _Part, stop: Stop, prompt: bool) -> list[Array]:
        with self._engine.request(part.kind) as request:
            for place, tensor in part.inputs:
                request.set_input_tensor(place, tensor)
            for target in part.targets:
                request.set_output_tensor(target.place, target.tensor)
            if prompt:
                with stop.calling(request.cancel):
                    if stop.is_set:
                        raise Dropped("the run was stopped before it began")
                    request.start_async()
                    if stop.is_set:  # set in between: there was nothing to cancel yet
                        request.cancel()
                    request.wait()
            else:  # on this thread, which saves 0.1 ms and cannot be cancelled
                request.infer(share_outputs=True)
            for target in part.targets:
                target.check()
            return [np.array(request.get_output_tensor(place).data) for place in self._fresh]


class _Target(NamedTuple):
    """An output with memory of the caller."""

    name: str
    place: int
    tensor: Any
    array: Array

    def check(self) -> None:
        """A tensor that was large enough takes whatever shape the run gave it."""
        if (shape := tuple(self.tensor.shape)) != self.array.shape:
            raise InferError(f"output {self.name} came as {list(shape)} where {list(self.array.shape)} was expected")


class _Part(NamedTuple):
    """One run of a compiled size."""

    kind: Kind
    inputs: list[tuple[int, Any]]  # place and tensor
    targets: list[_Target]
