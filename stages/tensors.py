"""Tensors of a job into its row: the model's inputs as they are, or as its ONNX file declares them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from parallel_infer.errors import BadInput
from parallel_infer.model_spec import ModelSpec, TensorSpec
from parallel_infer.protocol import Tensor
from stages.preprocess import Preprocess

Rows = Mapping[str, npt.NDArray[Any]]  # one job's row of each input

_EXACT = {"float32": 1e-3, "float64": 1e-3, "float16": 0.1}  # how far from a whole pixel value rounding leads
_DTYPES = (
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64"),
)
_COLORS = 'color="rgb" or color="bgr"'


class Declared:
    """The picture input of a model as its file declares it: float, normalised, while its rows are uint8 pixels.

    The graph normalises such rows itself. A tensor of the declared form is taken where it stands for whole pixel
    values, because then the rows give the values that the unchanged graph would compute.
    """

    def __init__(self, preprocess: Preprocess, row: TensorSpec) -> None:
        height, width = preprocess.height, preprocess.width
        self.name = preprocess.input
        self.planes = preprocess.layout == "nchw"
        channels = preprocess.channels
        self.shape = (channels, height, width) if self.planes else (height, width, channels)
        self.folded = row.dtype == "uint8" and channels == 3
        self._row = row
        spread = (channels, 1, 1) if self.planes else (channels,)
        self._mean = np.array(preprocess.mean[:channels], np.float64).reshape(spread)
        self._std = np.array(preprocess.std[:channels], np.float64).reshape(spread)

    def fits(self, dtype: str, shape: Sequence[int]) -> bool:
        """Whether a tensor is of the declared form, and the rows are not."""
        return self.folded and dtype in _EXACT and tuple(shape) == self.shape

    def write(self, tensor: npt.NDArray[Any], row: npt.NDArray[Any]) -> None:
        """Fill a row of uint8. Raises BadInput where the tensor holds anything else than normalised pixels."""
        pixels = tensor.astype(np.float64) * self._std + self._mean
        whole = np.rint(pixels)
        far = np.abs(pixels - whole) > _EXACT[tensor.dtype.name]
        if not np.isfinite(pixels).all() or far.any() or whole.min() < 0 or whole.max() > 255:
            raise BadInput(
                f"input {self.name!r} is kept as 8-bit pixels, which the graph normalises itself, and the "
                f"{tensor.dtype} tensor does not hold normalised whole pixel values 0 to 255: send a frame, uint8 "
                f"{list(self._row.shape)}, or have the server take any values with uint8_rows = false for this model"
            )
        np.copyto(row, whole.transpose(1, 2, 0) if self.planes and row.shape != self.shape else whole, casting="unsafe")


def encoded(tensors: Sequence[Tensor]) -> bool:
    """Whether one nameless tensor has the shape of an encoded picture's bytes (numpy.fromfile, cv2.imencode)."""
    if len(tensors) != 1 or tensors[0].dtype != "uint8" or tensors[0].name:
        return False
    return len(tensors[0].shape) == 1 or (len(tensors[0].shape) == 2 and 1 in tensors[0].shape)


def copy_tensors(
    spec: ModelSpec,
    declared: Declared | None,
    further: Rows,
    tensors: tuple[Tensor, ...],
    payload: memoryview,
    row: Rows,
) -> None:
    """Write the row. `further` are inputs that always get the same values and need not be sent. Raises BadInput."""
    expected = {tensor.name: tensor for tensor in spec.inputs}
    first = declared.name if declared is not None else next(iter(expected))
    if len(tensors) == 1 and not tensors[0].name:
        tensors = (Tensor(first, tensors[0].dtype, tensors[0].shape),)
    names = {tensor.name for tensor in tensors}
    missing = expected.keys() - names
    if len(names) != len(tensors) or not names <= expected.keys() or not missing <= further.keys():
        given = ", ".join(repr(tensor.name) for tensor in tensors)
        raise BadInput(f"model {spec.name!r} takes {describe_inputs(spec)}; tensors came for {given}")
    at = 0
    for tensor in tensors:
        values = _values(tensor, payload, at)
        at += values.nbytes
        _copy(expected[tensor.name], declared, values, row[tensor.name])
    if at != len(payload):
        raise BadInput(f"the tensors described have {at} bytes; the payload has {len(payload)}")
    for name in missing:
        row[name][...] = further[name]


def describe_inputs(spec: ModelSpec) -> str:
    """The inputs as an error names them."""
    return ", ".join(f"{tensor.name!r} {tensor.dtype} {list(tensor.shape)}" for tensor in spec.inputs)


def _values(tensor: Tensor, payload: memoryview, at: int) -> npt.NDArray[Any]:
    """A tensor where it lies in the payload."""
    if tensor.dtype not in _DTYPES:
        raise BadInput(f"tensor {tensor.name!r} is of dtype {tensor.dtype!r}; known are {', '.join(_DTYPES)}")
    dtype, count = np.dtype(tensor.dtype), math.prod(tensor.shape)
    if at + count * dtype.itemsize > len(payload):
        raise BadInput(f"the payload ends inside tensor {tensor.name!r}: {len(payload)} bytes came")
    return np.frombuffer(payload, dtype, count, at).reshape(tensor.shape)


def _copy(expected: TensorSpec, declared: Declared | None, values: npt.NDArray[Any], row: npt.NDArray[Any]) -> None:
    picture = declared if declared is not None and declared.name == expected.name else None
    wished = len(picture.shape) if picture is not None else len(expected.shape)
    axis = expected.axis if values.ndim == wished + 1 else None
    one = np.squeeze(values, axis) if axis is not None and values.shape[axis] == 1 else values  # a batch of one
    if one.dtype == expected.dtype and one.shape == expected.shape:
        np.copyto(row, one)
    elif picture is not None and picture.fits(one.dtype.name, one.shape):
        picture.write(one, row)
    else:
        also = f", or float32 {[1, *picture.shape]}" if picture is not None and picture.folded else ""
        advice = "" if picture is None else _of_other_size(picture, one) or _advice(values)
        raise BadInput(
            f"input {expected.name!r} is {expected.dtype} {list(expected.shape)}{also}; "
            f"{values.dtype} {list(values.shape)} came{advice}"
        )


def _of_other_size(picture: Declared, values: npt.NDArray[Any]) -> str:
    """What is wrong with floats in the form that the file declares, but for the size; "" where they are no such."""
    channel = 0 if picture.planes else 2
    sides = slice(1, 3) if picture.planes else slice(0, 2)
    if values.dtype.kind != "f" or values.ndim != 3 or values.shape[channel] != picture.shape[channel]:
        return ""
    found, wished = (" x ".join(map(str, shape[sides])) for shape in (values.shape, picture.shape))
    if found == wished:
        return ""
    advice = f"; it has {found} places where the model takes {wished}: resize the picture before it is normalised"
    if float(values.min(initial=0.0)) < 0.0 or float(values.max(initial=0.0)) > 1.0:
        return advice
    return f"{advice}, or, where its values are those of a picture of 0 to 1, say the order of its colours, {_COLORS}"


def _advice(values: npt.NDArray[Any]) -> str:
    """How an array that looks like a picture becomes one."""
    shape = values.shape[1:] if values.ndim == 4 else values.shape
    if values.ndim == 4 and values.shape[0] != 1:
        return "; one request takes one picture: send them one by one, or with infer_many"
    if len(shape) not in (2, 3) or (len(shape) == 3 and not {shape[0], shape[2]} & {1, 3, 4}):
        return ""
    if values.dtype == np.bool_:
        return "; as a picture: array.astype(np.uint8) * 255"
    if values.dtype == np.uint16:
        return "; as a picture: (array >> 8).astype(np.uint8), where all 16 bits are used"
    if values.dtype.kind in "iu" and values.dtype != np.uint8:
        return "; as a picture, where its values are 0 to 255: array.astype(np.uint8)"
    what = "values of 0 to 1" if values.dtype.kind == "f" else "these channels"
    return f"; as a picture of {what}, say the order of its colours, {_COLORS}, and it is converted"
