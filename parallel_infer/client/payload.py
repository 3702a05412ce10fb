"""What a user may hand in as a picture, and the payload it becomes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from parallel_infer.errors import BadInput
from parallel_infer.protocol import Tensor

Picture = str | os.PathLike[str] | bytes | bytearray | memoryview | npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]]


class Payload(NamedTuple):
    """`data` as it goes over the wire, and what it is. `data` may be a view of the user's own array."""

    kind: Literal["picture", "frame", "tensors"]
    tensors: tuple[Tensor, ...]
    data: bytes | memoryview


def payload_of(picture: Picture) -> Payload:
    """The payload of a picture: a path, encoded bytes, a uint8 frame, a tensor, or tensors by input name.

    A frame is uint8 [h, w, 3] BGR, or [h, w] or [h, w, 1] gray; any other array is a tensor. Frames and single
    tensors are not copied where they are contiguous. Raises BadInput for anything else and for unreadable files.
    """
    if isinstance(picture, np.ndarray):
        return _of_array(picture)
    if isinstance(picture, (bytes, bytearray, memoryview)):
        return Payload("picture", (), picture if isinstance(picture, bytes) else memoryview(picture))
    if isinstance(picture, (str, os.PathLike)):
        return Payload("picture", (), _read(picture))
    if isinstance(picture, Mapping):
        return _of_tensors(picture)
    raise BadInput(
        f"A {type(picture).__name__} is no picture. Give a path, encoded bytes, a uint8 array [h, w, 3] in BGR order, "
        "a tensor, or a dict of tensors"
    )


def _of_array(array: npt.NDArray[Any]) -> Payload:
    if array.dtype == np.uint8 and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3))):
        if array.ndim == 2 or array.shape[2] == 1:
            array = np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
        array = np.ascontiguousarray(array)
        return Payload("frame", (Tensor("", "uint8", array.shape),), _bytes_of(array))
    array, tensor = _tensor("", array)
    return Payload("tensors", (tensor,), _bytes_of(array))


def _of_tensors(arrays: Mapping[str, npt.NDArray[Any]]) -> Payload:
    ready = [_tensor(name, np.asarray(array)) for name, array in arrays.items()]
    if not ready:
        raise BadInput("An empty dict holds no tensors")
    tensors = tuple(tensor for _, tensor in ready)
    views = [_bytes_of(array) for array, _ in ready]
    return Payload("tensors", tensors, views[0] if len(views) == 1 else b"".join(views))


def _tensor(name: str, array: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Tensor]:
    if array.dtype.hasobject or array.dtype.kind in "SUMm" or array.dtype.fields:
        raise BadInput(f"Tensor {name!r} has elements of type {array.dtype}; numbers or booleans are needed")
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    return array, Tensor(name, array.dtype.name, array.shape)


def _bytes_of(array: npt.NDArray[Any]) -> bytes | memoryview:
    return array.reshape(-1).view(np.uint8).data if array.size else b""


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadInput(f"{os.fspath(path)!r} cannot be read: {error.strerror or error}") from error
