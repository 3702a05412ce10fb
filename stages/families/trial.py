"""A model tried out: one small run on one CPU thread, to learn what the file does not say.

The graph is taken as it is, without optimisation: loading is quick, and no constant is computed before the time
limit of a run applies.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime  # type: ignore[import-untyped]

from parallel_infer.errors import ModelRejected

TIME_LIMIT = 60.0  # seconds for one run
_DTYPES = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    **{name: name for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "bool")},
}

Arrays = Mapping[str, npt.NDArray[Any]]


class Port(NamedTuple):
    """An input or output as the file declares it. A dimension is a number, or text where it may vary."""

    name: str
    dtype: str
    dims: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} [{', '.join(map(str, self.dims))}]"


class TrialFailed(Exception):
    """The model did not run with the given inputs; the text is the reason alone."""


class Trial:
    """An open session for trying a model out. Raises ModelRejected where the file cannot be loaded."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.enable_cpu_mem_arena = False
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except Exception as error:  # every failure of ONNX Runtime is a direct child of Exception
            raise ModelRejected(f"{path.name}: {_reason(error, path)}") from error
        self.inputs = tuple(_port(argument) for argument in self._session.get_inputs())
        self.outputs = tuple(_port(argument) for argument in self._session.get_outputs())

    def run(self, inputs: Arrays, time_limit: float = TIME_LIMIT) -> dict[str, npt.NDArray[Any]]:
        """All outputs by name. Raises TrialFailed, also where the run takes longer than `time_limit` seconds."""
        run_options = onnxruntime.RunOptions()
        run_options.log_severity_level = 4
        timer = threading.Timer(time_limit, setattr, (run_options, "terminate", True))
        timer.daemon = True
        timer.start()
        try:
            outputs = self._session.run(None, dict(inputs), run_options)
        except Exception as error:  # every failure of ONNX Runtime is a direct child of Exception
            if run_options.terminate:
                raise TrialFailed(f"it did not finish within {time_limit:g} s") from error
            raise TrialFailed(_reason(error)) from error
        finally:
            timer.cancel()
            timer.join()
        return dict(zip((port.name for port in self.outputs), outputs, strict=True))


def _port(argument: Any) -> Port:
    found = re.fullmatch(r"tensor\((\w+)\)", argument.type)
    if found is None or found[1] not in _DTYPES:
        known = ", ".join(sorted(_DTYPES.values()))
        raise ModelRejected(f"{argument.name!r} is a {argument.type}; expected a tensor of {known}")
    return Port(argument.name, _DTYPES[found[1]], tuple("?" if dim is None else dim for dim in argument.shape))


_EXPLANATIONS = (
    (r"No Op registered for (\S+) with domain_version of (\d+)", "operator {0} (opset {1}) is unknown to this {ort}"),
    (r"Fatal error: (\S+?)\(-?\d+\) is not a registered function/op", "operator {0} is unknown to this {ort}"),
    (r"Unsupported model IR version: (\d+), max supported IR version: (\d+)", "IR version {0}; {ort} knows up to {1}"),
    (r"support for domain (\S+) is till opset (\d+)", "its opset of {0} is too new; {ort} knows up to {1}"),
    (r"protobuf parsing failed|No graph was found", "it was cut short or is damaged; expected an ONNX model"),
)


def _reason(error: Exception, path: Path | None = None) -> str:
    """ONNX Runtime's text in one short line, without its own source lines and without folders of this machine."""
    text = str(error)
    for pattern, explanation in _EXPLANATIONS:
        found = re.search(pattern, text)
        if found:
            return explanation.format(*found.groups(), ort=f"ONNX Runtime {onnxruntime.__version__}")
    if path is not None:
        text = text.replace(str(path), path.name).replace(str(path.parent), "")
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"(?:/[^\s:/]+)+\.(?:cc|h|cpp|hpp):\d+ [^)]*\)(?:::\S*\([^)]*\))?(?: const)?", "", text)
    return " ".join(text.split())[:400]


def sample(dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Input for a trial run: the same noise each time for pixels and other floats, zeros for whole numbers.

    Zeros, because whole numbers are mostly indices, and 0 is the one index that is always in range.
    """
    if dtype == "uint8":
        return np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    if dtype.startswith("float"):
        return np.random.default_rng(0).random(shape, np.float32).astype(dtype)
    return np.zeros(shape, dtype)
