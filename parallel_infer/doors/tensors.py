"""Tensors of the Open Inference Protocol: datatypes, and elements of type BYTES as they lie in a blob. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from parallel_infer.errors import BadInput

BYTES = "BYTES"
_DTYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
_DATATYPES = {dtype: datatype for datatype, dtype in _DTYPES.items()}
_LENGTH = struct.Struct("<I")
_MOST_ELEMENTS, _MOST_DIMENSIONS = 2**40, 32
_DEEPEST = 32  # lists within lists
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF")  # JPEG, PNG, WebP

Array = npt.NDArray[Any]


def datatype_of(dtype: str) -> str:
    """The protocol's name of a NumPy dtype ("float32" is "FP32"). Raises BadInput where it has none."""
    try:
        return _DATATYPES[dtype]
    except KeyError:
        raise BadInput(f"elements of type {dtype} have no datatype in this protocol") from None


def dtype_of(datatype: str, name: str) -> np.dtype[Any]:
    """The NumPy dtype of a numeric datatype. Raises BadInput for an unknown one, naming the tensor."""
    try:
        return np.dtype(_DTYPES[datatype])
    except KeyError:
        known = ", ".join([*_DTYPES, BYTES])
        raise BadInput(f"input {name!r} has the unknown datatype {datatype!r}; known are {known}") from None


def check_is_sent(parameters: Mapping[str, Any], what: str) -> None:
    """Raises BadInput for a tensor that lies, or is to be put, into memory that client and server share."""
    if any(name.startswith("shared_memory") for name in parameters):
        raise BadInput(f"{what} names a shared memory region; none are taken here, so send the tensor itself")


def elements(shape: Sequence[int], name: str) -> int:
    """How many elements a shape has. Raises BadInput for a negative or absurd dimension."""
    largest = 1  # as if dimensions of 0 were 1: NumPy has no shape that is too large without them
    for size in shape:
        if size < 0:
            raise BadInput(f"input {name!r} has the dimension {size} in its shape; 0 or more is needed")
        largest *= max(1, size)
        if largest > _MOST_ELEMENTS:
            raise BadInput(f"input {name!r} has a shape of more than 2**40 elements")
    if len(shape) > _MOST_DIMENSIONS:
        raise BadInput(f"input {name!r} has {len(shape)} dimensions; at most {_MOST_DIMENSIONS} are taken")
    return 0 if 0 in shape else largest


def array_of_blob(blob: memoryview, datatype: str, shape: Sequence[int], name: str) -> Array:
    """A numeric tensor as a view of its little-endian bytes. Raises BadInput where their number does not fit."""
    dtype = dtype_of(datatype, name)
    wanted = elements(shape, name) * dtype.itemsize
    if len(blob) != wanted:
        raise BadInput(f"input {name!r} has {len(blob)} bytes of data; {datatype} {list(shape)} takes {wanted}")
    flat: Array = np.frombuffer(blob, dtype)
    return flat.reshape(tuple(shape))


def texts_of_blob(blob: memoryview, shape: Sequence[int], name: str) -> list[memoryview]:
    """The elements of a BYTES tensor: each is preceded by its length, 4 bytes little-endian.

    A blob of one element that begins as a JPEG, PNG or WebP is that element without a length, as perf_analyzer sends
    base64 data. Raises BadInput where lengths and `shape` do not fit the blob.
    """
    count = elements(shape, name)
    if count == 1 and bytes(blob[:8]).startswith(_PICTURES):
        return [blob]
    found: list[memoryview] = []
    offset, end = 0, len(blob)
    while offset < end:
        if offset + 4 > end:
            raise BadInput(f"input {name!r}: the length of element {len(found)} is cut off")
        (size,) = _LENGTH.unpack_from(blob, offset)
        offset += 4
        if offset + size > end:
            raise BadInput(f"input {name!r}: element {len(found)} says {size} bytes, {end - offset} are there")
        found.append(blob[offset : offset + size])
        offset += size
        if len(found) > count:
            break
    if len(found) != count:
        raise BadInput(f"input {name!r} holds {len(found)} elements; its shape {list(shape)} says {count}")
    return found


def blob_of_texts(texts: Iterable[bytes | str]) -> bytes:
    """Elements of type BYTES, each after its length."""
    parts: list[bytes] = []
    for text in texts:
        data = text.encode() if isinstance(text, str) else text
        parts += (_LENGTH.pack(len(data)), data)
    return b"".join(parts)


def array_of_numbers(data: Any, datatype: str, shape: Sequence[int], name: str) -> Array:
    """A numeric tensor from JSON: a flat list, or lists nested as `shape` says.

    Raises BadInput where an element is no number, is out of the datatype's range, or the count does not fit.
    """
    dtype = dtype_of(datatype, name)
    count = elements(shape, name)
    flat = flattened(data)
    if len(flat) != count:
        raise BadInput(f"input {name!r} holds {len(flat)} elements; its shape {list(shape)} says {count}")
    fits = {bool} if dtype.kind == "b" else {int, float}
    kinds = set(map(type, flat))
    wrong = [value for value in flat if type(value) not in fits] if kinds - fits else []
    if dtype.kind in "iu" and float in kinds and not wrong:
        wrong = [value for value in flat if isinstance(value, float) and not value.is_integer()]
    if wrong:
        raise BadInput(f"input {name!r} holds {str(wrong[0])[:60]!r}, which is no {datatype}")
    try:
        array = np.array(flat, dtype) if dtype.kind != "f" else np.array(flat, np.float64)
    except (OverflowError, ValueError) as error:
        raise BadInput(f"input {name!r} holds a number out of the range of {datatype}: {error}") from None
    if dtype.kind == "f" and dtype != array.dtype:
        limit = np.finfo(dtype).max
        if bool(np.any(np.abs(array[np.isfinite(array)]) > limit)):
            raise BadInput(f"input {name!r} holds a number out of the range of {datatype}")
        array = array.astype(dtype)
    return array.reshape(tuple(shape))


def flattened(data: Any) -> list[Any]:
    """The leaves of nested lists in order; a single value is one leaf. Raises BadInput for lists nested too deep."""
    level = data if isinstance(data, list) else [data]
    for _ in range(_DEEPEST):
        kinds = set(map(type, level))
        if list not in kinds:
            return level
        level = list(chain.from_iterable(level if kinds == {list} else map(_listed, level)))
    raise BadInput(f"lists are nested more than {_DEEPEST} deep")


def _listed(item: Any) -> list[Any]:
    return item if isinstance(item, list) else [item]
