"""What a user may hand in as a picture, and the payload it becomes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from parallel_infer.client.arrays import Color, bytes_of_column, foreign_array, is_frame, picture_of
from parallel_infer.client.pil import frame_of, is_pil
from parallel_infer.errors import BadInput
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
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://|data:", re.IGNORECASE)


class Payload(NamedTuple):
    """`data` as it goes over the wire, and what it is. `data` may be a view of the user's own array."""

    kind: Literal["picture", "frame", "tensors"]
    tensors: tuple[Tensor, ...]
    data: bytes | memoryview


def payload_of(picture: Picture, color: Color | None = None) -> Payload:
    """The payload of a picture: a path, encoded bytes or a file of them, a frame, Pillow's picture, or tensors by name.

    A frame is uint8 [h, w, 3] in `color` order, BGR where none is given, or [h, w] or [h, w, 1] gray; see `arrays` for
    what else is one. Any other array is a tensor. Frames and single tensors are not copied where they are contiguous.
    Raises BadInput for anything else and for unreadable files.
    """
    if isinstance(picture, memoryview) and (picture.ndim != 1 or picture.format not in ("B", "b", "c")):
        picture = np.asarray(picture)
    if isinstance(picture, np.ndarray):
        return _of_array(picture, color)
    if isinstance(picture, bytes):
        return Payload("picture", (), picture)
    if isinstance(picture, (str, os.PathLike)):
        return Payload("picture", (), _read(picture))
    if isinstance(picture, Mapping):
        return _of_tensors(picture)
    if is_pil(picture):
        return _of_frame(frame_of(picture, color or "bgr"))
    if hasattr(picture, "read"):
        return Payload("picture", (), _read_file(picture))
    if (array := foreign_array(picture, color)) is not None:
        return _of_array(array, color)
    return Payload("picture", (), _bytes_like(picture))


def _of_array(array: npt.NDArray[Any], color: Color | None) -> Payload:
    array = bytes_of_column(array)
    if array.ndim != 1 and color is not None:
        return _of_frame(picture_of(array))
    if is_frame(array):
        return _of_frame(array)
    array, tensor = _tensor("", array)
    return Payload("tensors", (tensor,), _view(array))


def _of_frame(array: npt.NDArray[Any]) -> Payload:
    if array.ndim == 2 or array.shape[2] == 1:
        array = np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    array = np.ascontiguousarray(array)
    return Payload("frame", (Tensor("", "uint8", array.shape),), _view(array))


def _of_tensors(arrays: Mapping[str, npt.NDArray[Any]]) -> Payload:
    ready = [_tensor(name, _numpy(array)) for name, array in arrays.items()]
    if not ready:
        raise BadInput("An empty dict holds no tensors")
    tensors = tuple(tensor for _, tensor in ready)
    views = [_view(array) for array, _ in ready]
    return Payload("tensors", tensors, views[0] if len(views) == 1 else b"".join(views))


def _numpy(value: Any) -> npt.NDArray[Any]:
    array = None if isinstance(value, np.ndarray) else foreign_array(value, "rgb")  # tensors: no colours are meant
    return np.asarray(value if array is None else array)


def _tensor(name: str, array: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Tensor]:
    if array.dtype.hasobject or array.dtype.kind in "SUMm" or array.dtype.fields:
        raise BadInput(f"Tensor {name!r} has elements of type {array.dtype}; numbers or booleans are needed")
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    return array, Tensor(name, array.dtype.name, array.shape)


def _view(array: npt.NDArray[Any]) -> bytes | memoryview:
    return array.reshape(-1).view(np.uint8).data if array.size else b""


def _read(path: str | os.PathLike[str]) -> bytes:
    name = os.fspath(path)
    if isinstance(path, str) and _ADDRESS.match(path):
        raise BadInput(
            f"{name[:100]!r} is an address, and the client fetches nothing: send the bytes that it leads to, for "
            "example urllib.request.urlopen(address).read()"
        )
    try:
        return Path(path).read_bytes()
    except IsADirectoryError:
        raise BadInput(f"{name!r} is a folder; send its pictures one by one, or with infer_many") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{name[:200]!r} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _read_file(file: Any) -> bytes:
    """What is left to read of a file; all of it where it was just written and not rewound."""
    try:
        found = file.read()
        if not found and file.seekable() and file.tell():
            file.seek(0)
            found = file.read()
    except (OSError, ValueError) as error:
        raise BadInput(f"The file cannot be read: {error}") from error
    if not isinstance(found, (bytes, bytearray)):
        raise BadInput(f"The file gives {type(found).__name__}, not bytes; open it in binary mode, 'rb'")
    return bytes(found)


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
