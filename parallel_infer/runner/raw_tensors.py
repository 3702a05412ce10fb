"""Tensors in files without a header: the elements one after the other, C order, in the byte order of this machine."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from parallel_infer.errors import BadInput, ConfigError
from parallel_infer.files.outputs import Inputs, make_folder, write_whole
from parallel_infer.inference.signature import DeclaredTensor, Signature

Shapes = dict[str, tuple[int, ...]]


def input_shapes(signature: Signature, batch: int, given: Mapping[str, tuple[int, ...]]) -> Shapes:
    """The whole shape of every input: `given`, or else as declared, an open first dimension being `batch`.

    `ConfigError` where a dimension stays open, or a name in `given` is no input.
    """
    unknown = given.keys() - {tensor.name for tensor in signature.inputs}
    if unknown:
        raise ConfigError(f"the model has no input {', '.join(sorted(unknown))}; it takes {_names(signature)}")
    return {tensor.name: given.get(tensor.name) or _declared_shape(tensor, batch) for tensor in signature.inputs}


def read_tensor(path: Path, tensor: DeclaredTensor, shape: tuple[int, ...]) -> np.ndarray:
    """The file as an array of that shape. `BadInput` where its size is another."""
    try:
        found = path.stat().st_size
        expected = math.prod(shape) * tensor.dtype.itemsize
        if found != expected:
            raise BadInput(
                f"{path.name} has {found} bytes, but input {tensor.name} is {tensor.dtype} {list(shape)}, "
                f"which is {expected} bytes"
            )
        return np.fromfile(path, tensor.dtype).reshape(shape)
    except OSError as error:
        raise BadInput(f"{path.name} cannot be read: {error.strerror}") from error


def random_tensors(signature: Signature, shapes: Shapes) -> dict[str, np.ndarray]:
    """Inputs of random numbers, the same each time: floats from 0 to 1, whole numbers from 0 to 100."""
    random = np.random.default_rng(0)
    return {
        tensor.name: (
            random.random(shapes[tensor.name])
            if tensor.dtype.kind == "f"
            else random.integers(0, 100, shapes[tensor.name])
        ).astype(tensor.dtype)
        for tensor in signature.inputs
    }


def write_tensors(tensors: Mapping[str, np.ndarray], directory: Path, inputs: Inputs | None = None) -> dict[str, Path]:
    """Writes each to NAME_SHAPE.bin, such as probs_1x1000.bin, and gives the files. `ConfigError` where it cannot.

    A name gets a number where it is that of one of `inputs`, or of another tensor.
    """
    files: dict[str, Path] = {}
    for name, array in tensors.items():
        stem = f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}_{'x'.join(map(str, array.shape)) or 'scalar'}"
        # another tensor's where two names differ in odd characters or capitals alone
        taken = {file.name.casefold() for file in files.values()}
        names = itertools.chain([f"{stem}.bin"], (f"{stem}_{number}.bin" for number in itertools.count(1)))
        files[name] = next(
            directory / name
            for name in names
            if name.casefold() not in taken and (inputs is None or inputs.at(directory / name) is None)
        )
    make_folder(directory, "--output-dir")
    for name, file in files.items():
        write_whole(file, np.ascontiguousarray(tensors[name]).tobytes())
    return files


def _declared_shape(tensor: DeclaredTensor, batch: int) -> tuple[int, ...]:
    first = tensor.dimensions[:1]
    sizes = (batch if not isinstance(first[0], int) else first[0], *tensor.dimensions[1:]) if first else ()
    shape = tuple(size for size in sizes if isinstance(size, int))
    if len(shape) != len(sizes):
        raise ConfigError(f"the model takes any size of {tensor}; say which, such as --shape {tensor.name}=1,3,640,640")
    return shape


def _names(signature: Signature) -> str:
    return ", ".join(tensor.name for tensor in signature.inputs) or "no input"
