"""The tensors a model declares, and the check of arrays against them.

A dimension of a declared tensor is a number, a symbol ("batch"), which stands for the same number wherever it appears
in one run, or None, which may be anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from parallel_infer.errors import BadInput, ModelRejected
from parallel_infer.model_spec import TensorSpec

Dimension = int | str | None

_DTYPES = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "bool": "bool",
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


# Exporters write these for "not known". As symbols they would be one size wherever they stand, which they are not.
_NAMELESS = (None, "", "?", "-1", "*", "None", "none", "null")


@dataclass(frozen=True, slots=True)
class DeclaredTensor:
    """One input or output as the graph declares it, batch dimension included."""

    name: str
    dtype: np.dtype[np.generic]
    dimensions: tuple[Dimension, ...]

    def __str__(self) -> str:
        shape = ", ".join("?" if dimension is None else str(dimension) for dimension in self.dimensions)
        return f"{self.name}: {self.dtype} [{shape}]"

    def spec(self) -> TensorSpec:
        """Without the batch dimension, every dimension that is no number as -1."""
        shape = tuple(dimension if isinstance(dimension, int) else -1 for dimension in self.dimensions[1:])
        return TensorSpec(self.name, self.dtype.name, shape)

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...] | None:
        """The shape once symbols have `sizes`; None where a dimension stays unknown."""
        known = [sizes.get(size) if isinstance(size, str) else size for size in self.dimensions]
        return None if None in known else tuple(size for size in known if size is not None)

    def fits(self, array: np.ndarray) -> bool:
        """Whether dtype, rank and the dimensions that are numbers agree."""
        return self._is_alike(array) and _agree(self.dimensions, array.shape)

    def can_receive(self, array: np.ndarray, sizes: Mapping[str, int]) -> bool:
        """Whether `array` can take this output where symbols have `sizes`.

        A number as first dimension is not held against it: graphs with an open batch in their inputs often say 1 in
        their outputs, wrongly. Only the run tells.
        """
        known = tuple(sizes.get(size) if isinstance(size, str) else size for size in self.dimensions)
        first = (None if isinstance(size, int) else sizes.get(size or "") for size in self.dimensions[:1])
        return self._is_alike(array) and _agree((*first, *known[1:]), array.shape)

    def _is_alike(self, array: np.ndarray) -> bool:
        return array.dtype == self.dtype and array.ndim == len(self.dimensions)


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs of a model."""

    inputs: tuple[DeclaredTensor, ...]
    outputs: tuple[DeclaredTensor, ...]

    @property
    def batch(self) -> int | None:
        """The batch size the graph demands, the first dimension of its first input; None where any will do."""
        first = self.inputs[0].dimensions[:1] if self.inputs else ()
        return first[0] if first and isinstance(first[0], int) else None

    @property
    def has_open_batch(self) -> bool:
        """Whether all inputs and outputs begin with the same open batch size."""
        first = {tensor.dimensions[:1] for tensor in (*self.inputs, *self.outputs)}
        return len(first) == 1 and [isinstance(size, str) for size in first.pop()] == [True]

    def output_shapes(self, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """The shapes that can be relied on before a run, by output, where symbols have `sizes`."""
        shapes = {}
        for tensor in self.outputs:
            shape = tensor.shape(sizes)
            says_batch = tensor.dimensions[:1] and isinstance(tensor.dimensions[0], int)
            if shape is not None and not (says_batch and self.batch is None):  # see DeclaredTensor.can_receive
                shapes[tensor.name] = shape
        return shapes

    def check(self, inputs: Mapping[str, np.ndarray]) -> dict[str, int]:
        """The size of every symbol in the inputs; `BadInput` where they are not what the model takes."""
        if not isinstance(inputs, Mapping):
            raise BadInput(f"the model takes a map of {_listed(self.inputs)}; it was given a {type(inputs).__name__}")
        sizes: dict[str, int] = {}
        if len(inputs) != len(self.inputs) or any(tensor.name not in inputs for tensor in self.inputs):
            raise BadInput(f"the model takes {_listed(self.inputs)}; it was given {', '.join(inputs) or 'nothing'}")
        for tensor in self.inputs:
            array = inputs[tensor.name]
            if not isinstance(array, np.ndarray) or not tensor.fits(array):
                raise BadInput(f"the model takes {tensor}; it was given {_found(array)}")
            for size, dimension in zip(array.shape, tensor.dimensions, strict=True):
                if isinstance(dimension, str) and sizes.setdefault(dimension, size) != size:
                    raise BadInput(f"{tensor}: {dimension} is {size} here and {sizes[dimension]} in another dimension")
        return sizes


def declared(name: str, onnx_type: str, shape: list[int | str | None]) -> DeclaredTensor:
    """From the words of ONNX Runtime, e.g. "tensor(float)" and ["batch", 3, 224, 224].

    `ModelRejected` for what no NumPy array can hold: strings, bfloat16, sequences and maps.
    """
    element = onnx_type.removeprefix("tensor(").removesuffix(")")
    if element not in _DTYPES:
        raise ModelRejected(f"{name} is a {onnx_type}; only tensors of numbers and booleans can be served")
    dimensions = tuple(None if size in _NAMELESS or _is_negative(size) else size for size in shape)
    return DeclaredTensor(name, np.dtype(_DTYPES[element]), dimensions)


def _is_negative(size: Dimension) -> bool:
    return isinstance(size, int) and size < 0


def _agree(dimensions: tuple[Dimension, ...], shape: tuple[int, ...]) -> bool:
    """Whether every dimension that is a number is that number in `shape`, which is of the same length."""
    return all(want == have for want, have in zip(dimensions, shape, strict=True) if isinstance(want, int))


def _listed(tensors: tuple[DeclaredTensor, ...]) -> str:
    return "; ".join(map(str, tensors))


def _found(array: object) -> str:
    if isinstance(array, np.ndarray):
        return f"{array.dtype} {list(array.shape)}"
    return f"a {type(array).__name__}, not a NumPy array"
