"""What a file says of its inputs and outputs, for clients that send its own tensors."""

from __future__ import annotations

from collections.abc import Sequence

from parallel_infer.model_spec import FilePort, ModelFile, TensorSpec
from stages.recognise.graph import Graph
from stages.recognise.trial import Port


def file_of(
    graph: Graph,
    inputs: tuple[Port, ...],
    outputs: tuple[Port, ...],
    jobs: Sequence[TensorSpec],
    answers: Sequence[TensorSpec],
) -> ModelFile:
    """Ports with the batch as declared (-1: any size) and every other dimension as it is served (-1: unknown)."""
    return ModelFile(_ports(inputs, jobs), _ports(outputs, answers), graph.properties)


def _ports(declared: tuple[Port, ...], served: Sequence[TensorSpec]) -> tuple[FilePort, ...]:
    dims = {port.name: port.dims for port in declared}
    return tuple(FilePort(spec.name, spec.dtype, _whole(spec, dims[spec.name]), spec.axis) for spec in served)


def _whole(spec: TensorSpec, dims: tuple[int | str, ...]) -> tuple[int, ...]:
    """The shape with the batch where it stands."""
    if spec.axis is None:
        return spec.shape
    batch = dims[spec.axis] if spec.axis < len(dims) else -1
    return (*spec.shape[: spec.axis], batch if isinstance(batch, int) else -1, *spec.shape[spec.axis :])
