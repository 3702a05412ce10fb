"""A model in a session of ONNX Runtime, whatever its execution provider."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from parallel_infer.errors import ConfigError
from parallel_infer.inference.engines import Array, BoundRun, Stop, address_of
from parallel_infer.inference.options import SessionConfig
from parallel_infer.inference.ort import ort
from parallel_infer.inference.providers import ORT_NAMES, Choice, provider_list, session_options
from parallel_infer.inference.signature import DeclaredTensor, Signature, declared


class OrtEngine:
    """A session of ONNX Runtime. Raises its exceptions; `ConfigError` where the provider's libraries do not load."""

    def __init__(
        self, model: str | bytes, config: SessionConfig, choice: Choice, cuda_stream: int | None = None
    ) -> None:
        options, providers = session_options(config, choice), provider_list(config, choice, cuda_stream)
        # Without fallback: ONNX Runtime would print, and quietly take the CPU provider.
        self.session = ort.InferenceSession(model, options, providers, enable_fallback=0)
        if ORT_NAMES[choice.provider] not in self.session.get_providers():
            raise ConfigError(_not_loaded(choice.provider))
        if isinstance(model, bytes):
            self.session._model_bytes = None  # kept for a fallback only, and as large as the model
        self.signature = Signature(_declared(self.session.get_inputs()), _declared(self.session.get_outputs()))
        self.copies_inputs = choice.provider != "cpu"

    @property
    def at_once(self) -> int:
        return 1

    @property
    def metadata(self) -> dict[str, str]:
        return dict(self.session.get_modelmeta().custom_metadata_map)

    def run(self, inputs: Mapping[str, Array], stop: Stop) -> list[Array]:
        outputs: list[Array] = self.session.run(None, dict(inputs), stop.options)
        return outputs

    def bind(
        self, inputs: Mapping[str, Array], fixed: Mapping[str, Array], fresh: Sequence[str], buffer_set: int = 0
    ) -> BoundRun:
        return OrtBoundRun(self, inputs, fixed, fresh)

    def lock_pages(self, arrays: Iterable[Array]) -> None:
        """Nothing: other devices than CUDA's read memory where it lies, or copy it themselves."""

    def is_lost(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing is held beyond the session."""

    def end_profile(self) -> str:
        return str(self.session.end_profiling())


class OrtBoundRun:
    """An I/O binding."""

    __slots__ = ("_engine", "_fixed", "_fresh", "_inputs", "io")

    def __init__(
        self, engine: OrtEngine, inputs: Mapping[str, Array], fixed: Mapping[str, Array], fresh: Sequence[str]
    ) -> None:
        self._engine = engine
        self._inputs = inputs
        self._fixed = fixed
        self._fresh = fresh
        self.io = engine.session.io_binding()
        self._bind_inputs()
        for name, array in fixed.items():
            self.io.bind_output(name, "cpu", 0, array.dtype.type, array.shape, address_of(array))

    def run(self, stop: Stop, *, prompt: bool) -> list[Array]:
        if self._engine.copies_inputs:  # other devices get their copy at binding, so new content is bound anew
            self._bind_inputs()
            self.io.synchronize_inputs()
        for name in self._fresh:  # else the memory of the last run, and its shape, would be taken again
            self.io.bind_output(name, "cpu")
        self._engine.session.run_with_iobinding(self.io, stop.options)
        self.io.synchronize_outputs()
        if not self._fresh:
            return []
        # ONNX Runtime lists outputs in the order they were bound in: the fixed ones at the start, then these.
        return [value.numpy() for value in self.io.get_outputs()[len(self._fixed) :]]

    def _bind_inputs(self) -> None:
        for name, array in self._inputs.items():
            self.io.bind_cpu_input(name, array)


def _declared(tensors: Any) -> tuple[DeclaredTensor, ...]:
    return tuple(declared(tensor.name, tensor.type, tensor.shape) for tensor in tensors)


def _not_loaded(provider: str) -> str:
    return (
        f"provider = {provider} is installed, but its libraries do not load: for cuda, "
        "pip install 'onnxruntime-gpu[cuda,cudnn]'; for tensorrt, the TensorRT libraries on the library path"
    )
