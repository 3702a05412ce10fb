"""Arrays of every kind as frames or tensors: what is plain is converted, what could mean two things is refused.

A NumPy array of uint8 [h, w, 3] is a frame in BGR order, OpenCV's. With `color` any array that looks like a picture is
one in that order: channels first or last, alpha (dropped), or floats of 0 to 1. Other arrays are tensors of the model.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from parallel_infer.errors import BadInput

Array = npt.NDArray[Any]
Color = Literal["rgb", "bgr"]

_COLORS = (1, 3, 4)  # channels of a picture: gray, colours, colours and alpha
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_SAY = 'say which with color="rgb" or color="bgr"'


def bytes_of_column(array: Array) -> Array:
    """An encoded picture as older versions of OpenCV return it, uint8 [n, 1], as [n]; any other array itself."""
    if array.dtype != np.uint8 or array.ndim != 2 or 1 not in array.shape or array.size < 16:
        return array
    flat = array.reshape(-1)
    return flat if flat[:4].tobytes().startswith(_MAGIC) else array


def is_frame(array: Array) -> bool:
    """Whether it is a frame as it is: uint8 [h, w, 3] in BGR order, [h, w, 1] or [h, w]."""
    return array.dtype == np.uint8 and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3)))


def picture_of(array: Array) -> Array:
    """The frame, uint8 [h, w, 3] or [h, w], in an array that is said to be a picture. Raises BadInput."""
    shape = array.shape
    if array.ndim == 4 and shape[0] == 1:
        array = array[0]
    if array.ndim == 3 and array.shape[2] not in _COLORS and array.shape[0] in _COLORS:
        array = np.moveaxis(array, 0, 2)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in _COLORS) or not array.size:
        raise BadInput(
            f"An array of shape {list(shape)} is no picture: [h, w], [h, w, c] or [c, h, w] with 1, 3 or 4 channels is"
        )
    if array.ndim == 3:
        array = array[..., 0] if array.shape[2] == 1 else array[..., :3]
    return array if array.dtype == np.uint8 else _of_numbers(array)


def _of_numbers(array: Array) -> Array:
    kind = array.dtype.kind
    if kind == "f":
        if not (array >= 0).all() or not (array <= 1).all():
            raise BadInput(
                f"A picture of {array.dtype} needs values of 0 to 1; here they are {np.nanmin(array):g} to "
                f"{np.nanmax(array):g}. Where they are 0 to 255, send array.round().astype(np.uint8)"
            )
        return np.rint(array.astype(np.float32) * 255).astype(np.uint8)
    if kind == "b":
        raise BadInput("An array of bool is no picture; send array.astype(np.uint8) * 255")
    if array.dtype == np.uint16:
        raise BadInput(
            "A picture of uint16 may use fewer than 16 bits; where it does not, send (array >> 8).astype(np.uint8)"
        )
    if kind in "iu":
        raise BadInput(
            f"A picture of {array.dtype} is not taken; where its values are 0 to 255, send array.astype(np.uint8)"
        )
    raise BadInput(f"An array of {array.dtype} is no picture; send uint8, or floats of 0 to 1")


def foreign_array(value: Any, color: Color | None) -> Array | None:
    """The NumPy array of a tensor of PyTorch, TensorFlow, JAX, CuPy and their like; None where it is none of them.

    Such a picture is RGB as a rule, a frame of ours BGR as a rule, so its order must be said. Raises BadInput.
    """
    try:
        array = _numpy(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadInput(f"A {type(value).__name__} cannot be made a NumPy array: {error}") from error
    if array is not None and color is None and _like_a_picture(array):
        package = type(value).__module__.partition(".")[0]
        raise BadInput(
            f"A {package} array of {array.dtype} {list(array.shape)} may hold RGB or BGR; {_SAY}. "
            "A NumPy array of that shape would be BGR"
        )
    return array


def _like_a_picture(array: Array) -> bool:
    return array.dtype == np.uint8 and array.ndim == 3 and bool({array.shape[0], array.shape[2]} & {3, 4})


def _numpy(value: Any) -> Array | None:
    """By the methods that these packages have in common; none of them is imported."""
    if hasattr(value, "detach") and hasattr(value, "cpu"):  # PyTorch, on whatever device
        value = value.detach().cpu()
        return np.asarray(value.float() if str(value.dtype) == "torch.bfloat16" else value)
    if hasattr(value, "get") and hasattr(value, "__cuda_array_interface__"):  # CuPy
        return np.asarray(value.get())
    return np.asarray(value) if hasattr(value, "__array__") else None
