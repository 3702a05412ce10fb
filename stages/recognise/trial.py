"""A model tried out: a small run on one CPU thread, to learn what the file does not say.

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

from parallel_infer.errors import InferError, ModelRejected
from parallel_infer.inference.engines import Stop
from parallel_infer.inference.options import GraphOptimization, SessionConfig
from parallel_infer.inference.session import Session
from parallel_infer.inference.signature import DeclaredTensor

NAMELESS = "?"  # a dimension that varies and has no name
TIME_LIMIT = 60.0  # seconds for one run
_DARKEST, _BRIGHTEST = np.float32(0.1), np.float32(0.4)  # of the second kind of trial picture, of 0 to 1

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
        config = SessionConfig(
            provider="cpu", threads=1, optimization=GraphOptimization.NONE, cpu_arena=False, memory_pattern=False
        )
        try:
            self._session = Session(path, config)
        except ModelRejected as error:
            raise ModelRejected(f"{path.name}: {_explained(error)}") from error
        except UnicodeDecodeError as error:
            raise ModelRejected(f"{path.name} is damaged: the names of its inputs or outputs are not UTF-8") from error
        self.inputs = tuple(map(_port, self._session.signature.inputs))
        self.outputs = tuple(map(_port, self._session.signature.outputs))

    def run(self, inputs: Arrays, time_limit: float = TIME_LIMIT) -> dict[str, npt.NDArray[Any]]:
        """All outputs by name. Raises TrialFailed, also where the run takes longer than `time_limit` seconds."""
        stop = Stop()
        timer = threading.Timer(time_limit, stop.set)
        timer.daemon = True
        timer.start()
        try:
            return self._session.run(inputs, stop)
        except InferError as error:
            late = stop.is_set
            raise TrialFailed(f"it did not finish within {time_limit:g} s" if late else str(error)) from error
        finally:
            timer.cancel()
            timer.join()


def _port(tensor: DeclaredTensor) -> Port:
    dims = tuple(NAMELESS if dimension is None else dimension for dimension in tensor.dimensions)
    return Port(tensor.name, tensor.dtype.name, dims)


_EXPLANATIONS = (
    (r"No Op registered for (\S+) with domain_version of (\d+)", "unknown operator {0} (opset {1}): {ort} lacks it"),
    (r"Fatal error: (\S+?)\(-?\d+\) is not a registered function/op", "unknown operator {0}: {ort} lacks it"),
    (r"IR version: (\d+), max supported IR version: (\d+)", "IR version {0} is too new: {ort} knows up to {1}"),
    (r"Opset (\d+) is .* till opset (\d+)", "opset {0} is too new: {ort} knows up to {1}"),
    (r"protobuf parsing failed|No graph was found", "it was cut short or is damaged; expected an ONNX model"),
)


def _explained(error: ModelRejected) -> str:
    """The usual reasons in plain words, by what ONNX Runtime said; any other reason as it stands."""
    said = str(error.__cause__)
    for pattern, explanation in _EXPLANATIONS:
        found = re.search(pattern, said, re.DOTALL)
        if found:
            return explanation.format(*found.groups(), ort="the installed ONNX Runtime")
    return str(error)


def sample(dtype: str, shape: tuple[int, ...], number: int = 0) -> npt.NDArray[Any]:
    """Input for a trial run: the same each time, and another for each `number`.

    Pixels and other floats are noise, and for odd numbers darker and coarse noise: areas of one colour, as pictures
    have. Two of them differ in their least and largest number too, so that a graph that scales its input by those of
    the whole batch shows. Whole numbers are zeros or ones, because they are mostly indices, and those are in range
    almost everywhere.
    """
    if dtype != "uint8" and not dtype.startswith("float"):
        return np.full(shape, number % 2, dtype)
    generator = np.random.default_rng(number)
    noise = generator.random(shape, np.float32)
    if number % 2:
        noise = np.asarray(_DARKEST + (_BRIGHTEST - _DARKEST) * _coarse(noise))
    return (noise * 255).astype(dtype) if dtype == "uint8" else noise.astype(dtype)


def _coarse(noise: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Every eighth number of each long axis stands for the eight from it on."""
    for axis, size in enumerate(noise.shape):
        if size >= 16:
            noise = np.take(noise, np.arange(size) // 8 * 8, axis)
    return noise
