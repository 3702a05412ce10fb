"""A model loaded on a device, and its runs.

`Session.run` takes arrays and gives arrays. `Session.bind` is the way without copies: it ties a run to memory that
already exists, such as rows and output slots in shared memory, and the run reads and writes there.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from parallel_infer.errors import BadInput, DeviceLost, Dropped, InferError, ModelRejected, ResourceUnavailable
from parallel_infer.execution_providers import CACHING
from parallel_infer.inference.engines import Engine, Stop
from parallel_infer.inference.engines.cuda import CudaBoundRun, CudaEngine
from parallel_infer.inference.engines.onnx_runtime import OrtEngine
from parallel_infer.inference.options import SessionConfig
from parallel_infer.inference.providers import ON_CPU, choose, survey
from parallel_infer.inference.quantized import MOST_DEVIATION, deviation, is_quantized
from parallel_infer.inference.signature import DeclaredTensor, Signature
from parallel_infer.model_spec import TensorSpec

logger = logging.getLogger(__name__)

_PREFIX = re.compile(r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
_SOURCE = re.compile(r"(?:\S*/)[\w.+-]+\.(?:cc|cpp|h|cu|hpp):\d+(?: [^\[\n]*?\)(?: const)?)?(?: |$)")
_OPENVINO = re.compile(r"Exception from \S+:\d+:\s*|Caught exception:\s*|(?<=failed) at \S+:\d+")
_PATH = re.compile(r"(?<![\w)])/(?:[\w.+-]+/)*[\w.+-]+")
_CACHE_KEY = 16  # characters of the digest
_LONGEST_REASON = 400  # characters


class Session:
    """A model loaded on a device. Runs may go on in several threads at once.

    `inputs` and `outputs` describe the tensors of one job, without the batch dimension; `signature` has every
    dimension. `batch` is the batch size the graph demands, None where any will do.
    """

    def __init__(self, model: str | Path | bytes, config: SessionConfig | None = None) -> None:
        """Loads `model`, a file or its bytes. `ModelRejected` where it cannot, `ConfigError` for the provider."""
        _check_name(model)
        self.config = config or SessionConfig()
        self.choice = choose(self.config, survey(self.config))
        if self.config.cache is not None and self.choice.provider in CACHING:
            from parallel_infer.model_files.content import (
                digest_of_model,  # here: loads onnx, which most sessions do without
            )

            # TensorRT tells engines apart by the names in a graph, not by its weights: to each content its own folder.
            self.config = replace(self.config, cache=self.config.cache / digest_of_model(model)[:_CACHE_KEY])
        self._engine = self._load(model)
        self._running: set[Stop] = set()
        self._running_lock = threading.Lock()

    @property
    def signature(self) -> Signature:
        """All tensors with every dimension."""
        return self._engine.signature

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return tuple(tensor.spec() for tensor in self.signature.inputs)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return tuple(tensor.spec() for tensor in self.signature.outputs)

    @property
    def batch(self) -> int | None:
        return self.signature.batch

    @property
    def metadata(self) -> dict[str, str]:
        """The custom metadata of the file."""
        return self._engine.metadata

    def describe(self) -> str:
        """Provider, precision and device in one line."""
        return self.choice.describe()

    def run(self, inputs: Mapping[str, np.ndarray], stop: Stop | None = None) -> dict[str, np.ndarray]:
        """Outputs by name, in arrays of their own. `BadInput`, `Dropped` after a stop, `InferError` where it fails."""
        self.signature.check(inputs)
        with self._run(stop) as running:
            outputs = self._engine.run(inputs, running)
        return dict(zip((tensor.name for tensor in self.signature.outputs), outputs, strict=True))

    @property
    def at_once(self) -> int:
        """Runs that are worth beginning (`Binding.begin`) before the first of them is over, in so many buffer sets."""
        return self._engine.at_once

    def bind(
        self,
        inputs: Mapping[str, np.ndarray],
        outputs: Mapping[str, np.ndarray] | None = None,
        buffer_set: int = 0,
    ) -> Binding:
        """Ties a run to `inputs`, read where they lie, and to `outputs`, written where they lie.

        An output array has the dtype and shape of the output. Where the shape is known only after a run, a
        one-dimensional uint8 array is taken as bytes to copy the output to, whatever its shape. Outputs that are not
        named are allocated. All arrays are C-contiguous. `BadInput` where an array does not fit the model.

        Bindings that are under way at once have a `buffer_set` each, counted from 0, of memory on the device.
        """
        return Binding(self, inputs, outputs or {}, buffer_set)

    def terminate(self) -> None:
        """Ends all runs going on now, each at its next operator, with `Dropped`. Later runs are not affected."""
        with self._running_lock:
            for stop in self._running:
                stop.set()

    def lock_pages(self, arrays: Iterable[np.ndarray]) -> None:
        """Page-lock memory that bindings will use, where the device reads it by itself (CUDA). `close` undoes it."""
        if self.config.page_locked:
            self._engine.lock_pages(arrays)

    def close(self) -> None:
        """Let go of memory that was bound or page-locked. No run may go on, and none may follow."""
        self._engine.close()

    def end_profile(self) -> str:
        """Writes the profile asked for by `SessionConfig.profile` and gives its file name."""
        return self._engine.end_profile()

    def _load(self, model: str | Path | bytes) -> Engine:
        source = model if isinstance(model, bytes) else str(model)
        if isinstance(source, str) and not Path(source).is_file():
            raise ModelRejected("there is no model file of that name")
        try:
            engine = self._loaded(source)
        except ModelRejected as error:
            if not (self.choice.direct and self.config.provider == "auto"):
                raise
            logger.warning("%s; it runs on the CPU provider instead", error)
            self.choice = ON_CPU
            return self._loaded(source)
        return self._held_against_cpu(source, engine) if self.choice.provider == "openvino" else engine

    def _held_against_cpu(self, source: str | bytes, engine: Engine) -> Engine:
        """OpenVINO's engine, unless it computes a quantized graph wrongly and another provider may be taken."""
        if not is_quantized(source):
            return engine
        chosen, self.choice = self.choice, ON_CPU
        reference = self._loaded(source)
        try:
            found = deviation(
                reference.signature, lambda given: engine.run(given, Stop()), lambda given: reference.run(given, Stop())
            )
            fault = "" if found <= MOST_DEVIATION else "computes this quantized graph wrongly"
        except Exception as error:  # of the libraries, which share no base class of their own
            fault = f"could not be tried with this quantized graph ({reason(error)})"
        if fault and self.config.provider == "auto":
            engine.close()
            logger.warning("%s %s; it runs on the CPU provider instead", chosen.describe(), fault)
            return reference
        reference.close()
        self.choice = chosen
        if fault:
            logger.warning("%s %s; provider = cpu computes it as it is written", chosen.describe(), fault)
        return engine

    def _loaded(self, source: str | bytes) -> Engine:
        try:
            if self.choice.direct:
                from parallel_infer.inference.engines.openvino import OpenVinoEngine  # here: not installed everywhere

                return OpenVinoEngine(source, self.config, self.choice)
            if self.choice.provider == "cuda":
                return CudaEngine(source, self.config, self.choice)
            return OrtEngine(source, self.config, self.choice)
        except InferError:
            raise
        except Exception as error:  # exceptions of the libraries share no base class of their own
            raise ModelRejected(f"the model cannot be loaded ({self.describe()}): {reason(error)}") from error

    @contextmanager
    def _run(self, stop: Stop | None) -> Iterator[Stop]:
        """Makes a run stoppable, and errors of the library ours."""
        stop = stop or Stop()
        with self._running_lock:
            self._running.add(stop)
        try:
            yield stop
        except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
            known = isinstance(error, InferError)
            if (type(error) is InferError or not known) and self._engine.is_lost():
                raise DeviceLost(f"{self.choice.device} has failed: {reason(error)}") from error
            if known:
                raise
            raise _run_error(error, stop) from error
        finally:
            with self._running_lock:
                self._running.discard(stop)


class Binding:
    """A run bound to memory; may run again and again, in one thread at a time. It keeps its arrays alive."""

    __slots__ = ("_bound", "_fixed", "_fresh", "_inputs", "_session", "_targets")

    def __init__(
        self,
        session: Session,
        inputs: Mapping[str, np.ndarray],
        outputs: Mapping[str, np.ndarray],
        buffer_set: int = 0,
    ) -> None:
        sizes = session.signature.check(inputs)
        unknown = outputs.keys() - {tensor.name for tensor in session.signature.outputs}
        if unknown:
            raise BadInput(f"the model has no output {', '.join(sorted(unknown))}")
        self._session = session
        self._inputs = {name: _contiguous(name, array) for name, array in inputs.items()}
        self._fixed: dict[str, np.ndarray] = {}
        self._fresh: list[str] = []  # outputs that each run gets memory for
        self._targets: dict[str, np.ndarray] = {}  # where some of those are copied to
        for tensor in session.signature.outputs:
            self._place(tensor, outputs.get(tensor.name), sizes)
        with session._run(None):
            self._bound = session._engine.bind(self._inputs, self._fixed, self._fresh, buffer_set)

    def run(self, stop: Stop | None = None) -> dict[str, np.ndarray]:
        """Outputs by name: the bound arrays themselves, views into byte buffers, fresh arrays for what is not bound.

        `ResourceUnavailable` where an output does not fit its byte buffer, which then is unchanged; `Dropped` after a
        stop; `InferError` where the run fails, after which bound outputs may hold anything. Without a `stop`,
        `Session.terminate` may come too late for a run of OpenVINO's own runtime, which then ends as usual.
        """
        outputs = dict(self._fixed)
        with self._session._run(stop) as running:
            fresh = self._bound.run(running, prompt=stop is not None)
            for name, array in zip(self._fresh, fresh, strict=True):
                outputs[name] = _copied(name, array, self._targets[name]) if name in self._targets else array
        return outputs

    def begin(self) -> Callable[[], dict[str, np.ndarray]]:
        """Begin a run, in the thread that bound it. What this returns waits for its end, once and in any thread.

        Both raise what `run` raises, and what is returned gives what `run` gives; inputs and outputs must be left alone
        until then. Where the device does nothing beside a run, it is over when this returns.
        """
        if not isinstance(self._bound, CudaBoundRun):
            outputs = self.run()
            return lambda: outputs
        with self._session._run(None):
            wait = self._bound.begin()

        def finish() -> dict[str, np.ndarray]:
            with self._session._run(None):
                wait()
            return dict(self._fixed)

        return finish

    def _place(self, tensor: DeclaredTensor, array: np.ndarray | None, sizes: dict[str, int]) -> None:
        if array is None:
            self._fresh.append(tensor.name)
            return
        _contiguous(tensor.name, array)
        if not array.flags.writeable:
            raise BadInput(f"the array for output {tensor.name} cannot be written to")
        is_buffer = _is_bytes(array) and tensor.shape(sizes) is None
        if not _is_bytes(array) and not tensor.can_receive(array, sizes):
            raise BadInput(f"the array for output {tensor} is {array.dtype} {list(array.shape)}")
        if tensor.fits(array) and tensor.can_receive(array, sizes) and not is_buffer:
            self._fixed[tensor.name] = array
        else:
            self._fresh.append(tensor.name)
            self._targets[tensor.name] = array


def reason(error: Exception) -> str:
    """What the library says, on one line, without source positions and paths."""
    text = _PATH.sub("...", _SOURCE.sub("", _OPENVINO.sub("", _PREFIX.sub("", str(error)))))
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_REASON else text[:_LONGEST_REASON] + "..."


def _run_error(error: Exception, stop: Stop) -> InferError:
    text = reason(error)
    if stop.is_set and ("terminate" in text or "canceled" in text):
        return Dropped("the run was stopped before it finished")
    if "Failed to allocate memory" in text or isinstance(error, MemoryError):
        return ResourceUnavailable(f"not enough memory for this run; a smaller batch may fit: {text}")
    return InferError(f"the model failed: {text}")


def _contiguous(name: str, array: np.ndarray) -> np.ndarray:
    if not array.flags.c_contiguous:
        raise BadInput(f"the array for {name} is not C-contiguous")
    return array


def _is_bytes(array: np.ndarray) -> bool:
    return array.dtype == np.uint8 and array.ndim == 1


def _copied(name: str, array: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`array` written to `target`, or to its start where that is a buffer of bytes, as a view there."""
    if array.shape == target.shape and array.dtype == target.dtype:
        target[...] = array
        return target
    if not _is_bytes(target):
        raise InferError(f"output {name} came as {list(array.shape)} where {list(target.shape)} was expected")
    if array.nbytes > target.nbytes:
        raise ResourceUnavailable(
            f"output {name} takes {array.nbytes} bytes, {target.nbytes} are reserved for it; raise max_output_mb"
        )
    view: np.ndarray = target[: array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def _check_name(model: str | Path | bytes) -> None:
    """ONNX Runtime takes names in UTF-8 only, and says so in words that help nobody. Raises ModelRejected."""
    if isinstance(model, bytes):
        return
    try:
        str(model).encode()
    except UnicodeEncodeError:
        name = str(model).encode(errors="backslashreplace").decode()
        raise ModelRejected(f"{name} is no name in UTF-8; rename the file or its folder") from None
