"""What a user may hand in as a picture, and the payload it becomes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import IO, Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from parallel_infer.client.arrays import Color, bytes_of_column, foreign_array, is_frame, picture_of
from parallel_infer.client.pil import frame_of, is_pil
from parallel_infer.client.reading import check_size, read_file, read_path
from parallel_infer.errors import BadInput
from parallel_infer.limits import LARGEST_PAYLOAD
from parallel_infer.protocol import Tensor


class HasArray(Protocol):
    """An array of PyTorch, TensorFlow, JAX or another package."""

    def __array__(self) -> npt.NDArray[Any]: ...


class HasArrayInterface(Protocol):
    """A picture of Pillow."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


Picture = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | IO[bytes]
    | npt.NDArray[Any]
    | Mapping[str, npt.NDArray[Any]]
    | HasArray
    | HasArrayInterface
)


_NAMES: dict[np.dtype[Any], str] = {}  # of element types that travel as they are: NumPy makes a name anew each time


class Payload(NamedTuple):
    """`data` as it goes over the wire, and what it is. `data` may be a view of the user's own array."""

    kind: Literal["picture", "frame", "tensors"]
    tensors: tuple[Tensor, ...]
    data: bytes | memoryview


def payload_of(picture: Picture, color: Color | None = None, most: int = LARGEST_PAYLOAD) -> Payload:
    """The payload of a picture: a path, encoded bytes or a file of them, a frame, Pillow's picture, or tensors by name.

    A frame is uint8 [h, w, 3] in `color` order, BGR where none is given, or [h, w] or [h, w, 1] gray; see `arrays` for
    what else is one. Any other array is a tensor. Frames and single tensors are not copied where they are contiguous.
    Raises BadInput for anything else, for unreadable files, and for what would be more than `most` bytes, as far as
    possible before it is read or copied.
    """
    try:
        return _payload_of(picture, color, most)
    except MemoryError as error:
        raise BadInput("There is not enough memory on this machine to send the picture") from error


def _payload_of(picture: Picture, color: Color | None, most: int) -> Payload:
    if type(picture) is dict:  # first, because the checks below of what is no class cost as much as sending
        return _of_tensors(picture, most)
    if isinstance(picture, memoryview) and (picture.ndim != 1 or picture.format not in ("B", "b", "c")):
        picture = np.asarray(picture)
    if isinstance(picture, np.ndarray):
        return _of_array(picture, color, most)
    if isinstance(picture, bytes):
        return _encoded(picture, most)
    if isinstance(picture, (str, os.PathLike)):
        return Payload("picture", (), read_path(picture, most))
    if isinstance(picture, Mapping):
        return _of_tensors(picture, most)
    if is_pil(picture):
        return _of_frame(frame_of(picture, color or "bgr"), most)
    if hasattr(picture, "read"):
        return Payload("picture", (), read_file(picture, most))
    if (array := foreign_array(picture, color)) is not None:
        return _of_array(array, color, most)
    return _encoded(_bytes_like(picture), most)


def _encoded(data: bytes | memoryview, most: int) -> Payload:
    if not len(data):
        raise BadInput("The picture is empty: it has no bytes")
    check_size(len(data), most)
    return Payload("picture", (), data)


def _of_array(array: npt.NDArray[Any], color: Color | None, most: int) -> Payload:
    array = bytes_of_column(array)
    if array.ndim != 1 and color is not None:
        return _of_frame(picture_of(array), most)
    if is_frame(array):
        return _of_frame(array, most)
    check_size(array.nbytes, most)
    array, tensor = _tensor("", array)
    return Payload("tensors", (tensor,), _view(array))


def _of_frame(array: npt.NDArray[Any], most: int) -> Payload:
    if not array.size:
        raise BadInput(f"An array of shape {list(array.shape)} is no picture: it has no pixels")
    check_size(array.shape[0] * array.shape[1] * 3, most)
    if array.ndim == 2 or array.shape[2] == 1:
        array = np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    array = np.ascontiguousarray(array)
    return Payload("frame", (Tensor("", "uint8", array.shape),), _view(array))


def _of_tensors(arrays: Mapping[str, npt.NDArray[Any]], most: int) -> Payload:
    if not arrays:
        raise BadInput("An empty dict holds no tensors")
    if len(arrays) == 1:
        ((name, value),) = arrays.items()
        array = _numpy(name, value)
        check_size(array.nbytes, most)
        array, tensor = _tensor(name, array)
        return Payload("tensors", (tensor,), _view(array))
    found = {name: _numpy(name, value) for name, value in arrays.items()}
    check_size(sum(array.nbytes for array in found.values()), most)
    ready = [_tensor(name, array) for name, array in found.items()]
    tensors = tuple(tensor for _, tensor in ready)
    views = [_view(array) for array, _ in ready]
    return Payload("tensors", tensors, b"".join(views))


def _numpy(name: object, value: Any) -> npt.NDArray[Any]:
    if not isinstance(name, str):
        raise BadInput(f"A tensor's name is a text, not a {type(name).__name__}")
    if type(value) is np.ndarray:
        return value
    array = None if isinstance(value, np.ndarray) else foreign_array(value, "rgb")  # tensors: no colours are meant
    try:
        return np.asarray(value if array is None else array)
    except (TypeError, ValueError) as error:
        raise BadInput(f"Tensor {name!r} is no array: {error}") from error


def _tensor(name: str, array: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Tensor]:
    dtype_name = _NAMES.get(array.dtype)
    if dtype_name is None:
        if array.dtype.hasobject or array.dtype.kind in "SUMm" or array.dtype.fields:
            raise BadInput(f"Tensor {name!r} has elements of type {array.dtype}; numbers or booleans are needed")
        if array.dtype.byteorder == ">":
            array = array.astype(array.dtype.newbyteorder("<"))
        dtype_name = array.dtype.name
        if array.dtype.isbuiltin == 1:
            _NAMES[array.dtype] = dtype_name
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    return array, Tensor(name, dtype_name, array.shape)


def _view(array: npt.NDArray[Any]) -> bytes | memoryview:
    return array.reshape(-1).view(np.uint8).data if array.size else b""


def _bytes_like(picture: Any) -> memoryview:
    """Encoded bytes in whatever holds them: bytearray, memoryview, mmap, array.array."""
    try:
        view = memoryview(picture)
    except TypeError:
        several = "; infer_many takes several pictures" if isinstance(picture, (list, tuple)) else ""
        raise BadInput(
            f"A {type(picture).__name__} is no picture. Give a path, encoded bytes, a uint8 array [h, w, 3] in BGR "
            f"order, a picture of Pillow, a tensor, or a dict of tensors{several}"
        ) from None
    return view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
