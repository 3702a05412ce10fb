"""Whether a provider computes a quantized graph as it is written.

OpenVINO 2026.4 moves quantizers through a graph before it computes in 8 bits, and some graphs come out wrong:
activations in int8 behind a concatenation of quantized branches gave a detector that found nothing, without an error.
Its outputs are therefore held against ONNX Runtime's own once, before the first job.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from parallel_infer.inference.signature import DeclaredTensor, Signature

Arrays = Mapping[str, npt.NDArray[np.generic]]
Run = Callable[[Arrays], Sequence[npt.NDArray[np.generic]]]

MOST_DEVIATION = 0.4
"""Graphs that are computed rightly stayed under 0.3 (rounding, one step of 8 bits), wrong ones were over 0.43."""

_OPERATORS = b"QuantizeLinear"  # DequantizeLinear and DynamicQuantizeLinear end so as well
_OPEN_SIZE = 224  # of a dimension that the graph leaves open
_CELL = 8  # pixels of one shade in a trial picture
_SCALES = (1.0, 255.0)  # what pixels as float32 may go up to
_SEED = 3


def is_quantized(model: str | bytes) -> bool:
    """Whether a model, a file or its bytes, has quantizing operators. Their names lie in the file as they are."""
    if isinstance(model, bytes):
        return _OPERATORS in model or b"QLinear" in model
    with Path(model).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(_OPERATORS) >= 0 or content.find(b"QLinear") >= 0


def deviation(signature: Signature, run: Run, reference: Run) -> float:
    """How far `run` is from `reference` on a picture of noise in blocks: 0 the same, 1 as far as any other picture.

    Per output the median over its channels (the shortest dimension after the batch) of the L2 norm of the difference,
    relative to that of what varies in the reference; the greatest of all outputs of floating point that have the same
    shape in both. The scale of float inputs is not known, so the picture of the scale that moves outputs most counts.
    Raises what the runs raise.
    """
    trials = [(inputs, reference(inputs)) for inputs in _trials(signature)]
    inputs, expected = max(trials, key=lambda trial: _variation(trial[1]))
    pairs = zip(run(inputs), expected, strict=True)
    return max((_relative(found, wanted) for found, wanted in pairs if _comparable(found, wanted)), default=0.0)


def _trials(signature: Signature) -> Iterator[Arrays]:
    floats = any(tensor.dtype.kind == "f" for tensor in signature.inputs)
    for scale in _SCALES if floats else _SCALES[-1:]:
        random = np.random.default_rng(_SEED)
        yield {tensor.name: _blocks(tensor, signature.batch or 1, scale, random) for tensor in signature.inputs}


def _blocks(tensor: DeclaredTensor, batch: int, scale: float, random: np.random.Generator) -> npt.NDArray[np.generic]:
    """Noise in blocks along the two longest dimensions, 0 to `scale`; small whole numbers for int32 and the like."""
    shape = (batch, *(size if isinstance(size, int) else _OPEN_SIZE for size in tensor.dimensions[1:]))
    if tensor.dtype.kind != "f" and tensor.dtype != np.uint8:
        return random.integers(0, 2, shape).astype(tensor.dtype)
    longest = sorted(range(1, len(shape)), key=lambda axis: shape[axis])[-2:]
    coarse = tuple(-(-size // _CELL) if axis in longest else size for axis, size in enumerate(shape))
    values = random.random(coarse, np.float32)
    for axis in longest:
        values = np.repeat(values, _CELL, axis).take(range(shape[axis]), axis)
    return (values * scale).astype(tensor.dtype)


def _comparable(found: npt.NDArray[np.generic], wanted: npt.NDArray[np.generic]) -> bool:
    return wanted.dtype.kind == "f" and found.shape == wanted.shape and wanted.size > 1


def _relative(found: npt.NDArray[np.generic], wanted: npt.NDArray[np.generic]) -> float:
    ours, theirs = _channels(found), _channels(wanted)
    if not np.isfinite(ours).all():
        return 0.0 if not np.isfinite(theirs).all() else np.inf
    spread = np.linalg.norm(theirs - theirs.mean(axis=1, keepdims=True), axis=1)
    live = spread > 1e-6 * np.linalg.norm(theirs, axis=1).max()  # what does not vary says nothing
    return float(np.median(np.linalg.norm(ours - theirs, axis=1)[live] / spread[live])) if live.any() else 0.0


def _variation(outputs: Sequence[npt.NDArray[np.generic]]) -> float:
    return sum(float(np.nanstd(_channels(array), axis=1).mean()) for array in outputs if _comparable(array, array))


def _channels(array: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """float64 [channels, values]; the channels are the shortest dimension of several behind the batch."""
    values = array.astype(np.float64)
    if values.ndim < 3:
        return values.reshape(1, -1)
    axis = min(range(1, values.ndim), key=lambda index: values.shape[index])
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
