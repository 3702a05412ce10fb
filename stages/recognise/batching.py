"""Which batch sizes a model really takes: what the graph declares, and what a run with two jobs shows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from parallel_infer.errors import ModelRejected
from parallel_infer.models import TensorSpec
from stages.recognise.graph import Graph
from stages.recognise.shapes import Shapes
from stages.recognise.trial import Port, Trial, TrialFailed, sample

_MOST_BYTES = 4 << 30  # of the inputs of a trial run
_ENOUGH = 2  # jobs that tell a batch dimension that works from one that does not

Constants = Mapping[str, list[float]]


class Tried(Struct, frozen=True):
    """A run that worked: the demanded batch size (None: any), the reason, and all outputs of the run."""

    batch: int | None
    reason: str
    outputs: dict[str, npt.NDArray[Any]]


def try_batches(graph: Graph, trial: Trial, shapes: Shapes, constants: Constants) -> Tried:
    """Run the model once with the batch it declares: two jobs where it says any number, one more run where two fail.

    Raises ModelRejected where it cannot run, or where an output cannot be told apart by job.
    """
    declared, reason = _declared(trial.inputs, trial.outputs)
    if declared is not None:
        return Tried(declared, reason, _attempt(graph, trial, shapes, constants, declared))
    try:
        return Tried(None, "", _run(trial, shapes, constants, _ENOUGH))
    except TrialFailed as failure:
        reason = f"the graph declares a batch of any size, but a run with {_ENOUGH} failed ({failure})"
    return Tried(1, reason, _attempt(graph, trial, shapes, constants, 1))


def _declared(inputs: tuple[Port, ...], outputs: tuple[Port, ...]) -> tuple[int | None, str]:
    """The batch size that the graph fixes and the tensor that fixes it; None where all is open."""
    fixed = {port.name: port.dims[0] for port in inputs if isinstance(port.dims[0], int)}
    if len(set(fixed.values())) > 1:
        found = ", ".join(f"{name}: {size}" for name, size in fixed.items())
        raise ModelRejected(f"inputs differ in their first dimension ({found}); expected the same batch in all")
    fixed |= {port.name: port.dims[0] for port in outputs if port.dims and isinstance(port.dims[0], int)}
    for name, size in fixed.items():
        if int(size) < 1:
            raise ModelRejected(f"{name!r} has a batch of {size}; expected 1 or more, or any")
        return int(size), f"{name} has a fixed batch of {size}"
    return None, ""


def _attempt(graph: Graph, trial: Trial, shapes: Shapes, constants: Constants, batch: int) -> dict[str, Any]:
    try:
        return _run(trial, shapes, constants, batch)
    except TrialFailed as failure:
        tried = ", ".join(f"{name} {[batch, *shape]}" for name, shape in shapes.items())
        raise ModelRejected(
            f"{graph.file} failed a trial run with {tried}: {failure}. "
            "If the shape is wrong, give another with imgsz or shapes"
        ) from failure


def _run(trial: Trial, shapes: Shapes, constants: Constants, batch: int) -> dict[str, npt.NDArray[Any]]:
    size = batch * sum(math.prod(shapes[port.name]) * np.dtype(port.dtype).itemsize for port in trial.inputs)
    if size > _MOST_BYTES:
        raise TrialFailed(f"the inputs of a batch of {batch} take {size >> 20} MiB, above {_MOST_BYTES >> 20} MiB")
    inputs = {port.name: _filled(port, shapes[port.name], constants, batch) for port in trial.inputs}
    outputs = trial.run(inputs)
    for name, array in outputs.items():
        if array.ndim == 0 or array.shape[0] != batch:
            raise TrialFailed(
                f"output {name!r} has the shape {list(array.shape)} for a batch of {batch}, "
                "so its first dimension is not the batch"
            )
    return outputs


def _filled(port: Port, shape: tuple[int, ...], constants: Constants, batch: int) -> npt.NDArray[Any]:
    if port.name in constants:
        row = np.array(constants[port.name], port.dtype).reshape(shape)
        return np.repeat(row[None], batch, axis=0)
    return sample(port.dtype, (batch, *shape))


def output_specs(graph: Graph, outputs: tuple[Port, ...], tried: Tried, padded: bool) -> tuple[TensorSpec, ...]:
    """The outputs of one job. An open dimension that may follow from the picture is -1, unless all is `padded`."""
    unknown = graph.value_shaped and not padded
    specs = []
    for port in outputs:
        found = tried.outputs[port.name].shape[1:]
        dims = port.dims[1:] if len(port.dims) == len(found) + 1 else ("?",) * len(found)
        shape = tuple(-1 if unknown and isinstance(dim, str) else size for dim, size in zip(dims, found, strict=True))
        specs.append(TensorSpec(port.name, port.dtype, shape))
    return tuple(specs)
