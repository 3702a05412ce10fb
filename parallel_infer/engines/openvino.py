"""A model in OpenVINO's own runtime.

OpenVINO computes well on every x86-64 processor, in bfloat16 at twice the speed where the processor has it, but its
plugin for ONNX Runtime offers it on Intel's only. Elsewhere the same library is called directly: inputs are read and
outputs written where they lie, as with ONNX Runtime.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from parallel_infer.engines import Array, Stop
from parallel_infer.engines.onnx_runtime import OrtEngine
from parallel_infer.errors import Dropped, InferError
from parallel_infer.providers import ON_CPU, Choice, openvino_device_options
from parallel_infer.session_config import GraphOptimization, SessionConfig

# A batch size and the outputs that have memory of the caller. A request belongs to the graph of one size, and it does
# not forget memory it was given, it only takes other memory.
Kind = tuple[int | None, frozenset[str]]


class OpenVinoEngine:
    """A model compiled by OpenVINO. Raises its exceptions, and those of ONNX Runtime, which reads the model first."""

    def __init__(self, model: str | bytes, config: SessionConfig, choice: Choice) -> None:
        # What tensors are called and which of their dimensions are the same number is lost on OpenVINO.
        plain = SessionConfig(threads=1, optimization=GraphOptimization.NONE, cpu_arena=False)
        reader = OrtEngine(model, plain, ON_CPU)
        self.signature = reader.signature
        self._metadata = reader.metadata
        del reader
        self._openvino = importlib.import_module("openvino")
        self._models = self._compiled(model, config, choice)  # by batch size; None takes any
        self._inputs = {tensor.name: place for place, tensor in enumerate(self.signature.inputs)}
        self._outputs = {tensor.name: place for place, tensor in enumerate(self.signature.outputs)}
        self._idle: dict[Kind, list[Any]] = {}

    @property
    def metadata(self) -> dict[str, str]:
        return dict(self._metadata)

    def run(self, inputs: Mapping[str, Array], stop: Stop) -> list[Array]:
        contiguous = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        return self.tie(contiguous, {}, tuple(self._outputs)).run(stop, prompt=True)

    def tie(self, inputs: Mapping[str, Array], fixed: Mapping[str, Array], fresh: Sequence[str]) -> OpenVinoTied:
        return OpenVinoTied(self, inputs, fixed, fresh)

    def end_profile(self) -> str:
        raise InferError("OpenVINO's own runtime writes no profile")

    def tensor(self, array: Array) -> Any:
        """`array` as OpenVINO sees it, without a copy."""
        return self._openvino.Tensor(array, shared_memory=True)

    def input_place(self, name: str) -> int:
        return self._inputs[name]

    def output_place(self, name: str) -> int:
        return self._outputs[name]

    def kind(self, inputs: Mapping[str, Array], fixed: Mapping[str, Array]) -> Kind:
        """What a request for these arrays has to be."""
        shape = next(iter(inputs.values())).shape if inputs else ()
        size = shape[0] if shape and shape[0] in self._models else None
        return size, frozenset(fixed)

    @contextmanager
    def request(self, kind: Kind) -> Iterator[Any]:
        """An inference request that nobody else uses meanwhile; making one takes longer than a small run."""
        idle = self._idle.setdefault(kind, [])
        request = idle.pop() if idle else self._models[kind[0]].create_infer_request()
        yield request  # one whose run failed is not used again
        idle.append(request)

    def _compiled(self, model: str | bytes, config: SessionConfig, choice: Choice) -> dict[int | None, Any]:
        """The graph as it is, and once more for each of `config.batches`: an open size costs up to a sixth of the time.

        All are compiled now, since the graph that was read holds the weights once more.
        """
        core = self._openvino.Core()
        graph, options = core.read_model(model), openvino_device_options(config, choice)
        sizes = config.batches if self._has_open_batch() else ()
        models: dict[int | None, Any] = {}
        if not (sizes and config.only_batches):
            models[None] = core.compile_model(graph, "CPU", options)
        for size in sizes:
            sized = graph.clone()
            rows = [tensor.dimensions[1:] for tensor in self.signature.inputs]
            sized.reshape({place: [size, *row] for place, row in enumerate(rows)})
            models[size] = core.compile_model(sized, "CPU", options)
        return models

    def _has_open_batch(self) -> bool:
        """Whether nothing but the batch size is open in the inputs."""
        inputs = self.signature.inputs
        return all(
            tensor.dimensions
            and tensor.dimensions[0] == inputs[0].dimensions[0]
            and not isinstance(tensor.dimensions[0], int)
            and all(isinstance(size, int) for size in tensor.dimensions[1:])
            for tensor in inputs
        )


class OpenVinoTied:
    """The tensors of a run, given to whichever request is idle."""

    __slots__ = ("_engine", "_expected", "_fixed", "_fresh", "_inputs", "_kind")

    def __init__(
        self, engine: OpenVinoEngine, inputs: Mapping[str, Array], fixed: Mapping[str, Array], fresh: Sequence[str]
    ) -> None:
        self._engine = engine
        self._inputs = [(engine.input_place(name), engine.tensor(array)) for name, array in inputs.items()]
        self._fixed = [(engine.output_place(name), engine.tensor(array)) for name, array in fixed.items()]
        self._expected = dict(fixed)
        self._fresh = [engine.output_place(name) for name in fresh]
        self._kind = engine.kind(inputs, fixed)

    def run(self, stop: Stop, *, prompt: bool) -> list[Array]:
        with self._engine.request(self._kind) as request:
            for place, tensor in self._inputs:
                request.set_input_tensor(place, tensor)
            for place, tensor in self._fixed:
                request.set_output_tensor(place, tensor)
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
            self._check_shapes()
            return [np.array(request.get_output_tensor(place).data) for place in self._fresh]

    def _check_shapes(self) -> None:
        """A tensor that was large enough takes whatever shape the run gave it."""
        for (name, array), (_, tensor) in zip(self._expected.items(), self._fixed, strict=True):
            if (shape := tuple(tensor.shape)) != array.shape:
                raise InferError(f"output {name} came as {list(shape)} where {list(array.shape)} was expected")
