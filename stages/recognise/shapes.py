"""The shapes of one job: every dimension that the file leaves open gets its size here, or an error that asks for it."""

from __future__ import annotations

import math

import numpy as np
from msgspec import Struct

from parallel_infer.errors import ConfigError, ModelRejected
from stages.families.facts import Metadata
from stages.recognise.graph import Graph
from stages.recognise.overrides import Overrides
from stages.recognise.picture import Picture
from stages.recognise.trial import NAMELESS, Port

DEFAULT_SIDE = 640
MOST_BYTES = 1 << 30  # of all inputs of one job
_MASK_SIDE = 64  # of DETR's pixel_mask, which the graph resizes to its own feature map

Shapes = dict[str, tuple[int, ...]]

TARGET_SIZES = "orig_target_sizes"
PIXEL_MASK = "pixel_mask"
SCALE_FACTOR = "scale_factor"  # of PaddleDetection: from the picture to the row, height first
PICTURE_SHAPE = "im_shape"  # of PaddleDetection: of the row, height first


class Row(Struct, frozen=True):
    """Shapes of one job's inputs, without the batch dimension."""

    shapes: Shapes
    warnings: tuple[str, ...] = ()
    guessed: bool = False  # height and width are nobody's words but our default


def row_of(jobs: tuple[Port, ...], picture: Picture | None, metadata: Metadata, overrides: Overrides) -> Row:
    """Settle all input shapes. `jobs` are the inputs with the dimensions of one job.

    Raises ModelRejected where a shape has to be given, ConfigError where it cannot be.
    """
    inputs = jobs
    warnings: tuple[str, ...] = ()
    guessed = False
    settled: dict[str, tuple[int | str, ...]] = {}
    for port in inputs:
        dims = _given(port, overrides) or port.dims
        if picture is not None and port.name == picture.port.name:
            size, guessed = _picture_size(picture, dims, metadata, overrides)
            dims = _with_size(picture, dims, size)
        settled[port.name] = dims
    symbols = _symbols(inputs, settled)
    shapes = {port.name: _closed(port, settled[port.name], symbols) for port in inputs}
    if guessed:
        side = f"{DEFAULT_SIDE} x {DEFAULT_SIDE}"
        warnings = (f"the graph takes pictures of any size and names none: {side} is used; set imgsz to change it",)
    _check_bytes(inputs, shapes)
    return Row(shapes, warnings, guessed)


def check_inputs(graph: Graph, inputs: tuple[Port, ...], overrides: Overrides) -> None:
    """Raise ModelRejected for inputs that nothing fits, ConfigError for shapes of inputs that are not there."""
    if not inputs:
        raise ModelRejected(f"{graph.file} has no inputs; expected at least one with a batch dimension")
    for port in inputs:
        if port.name in graph.unranked:
            raise ModelRejected(f"input {port.name!r} does not say its number of dimensions; export it with a shape")
    known = [port.name for port in inputs]
    for name in overrides.shapes:
        if name not in known:
            raise ConfigError(f"shapes: the model has no input {name!r}; it has {', '.join(known)}")


def _given(port: Port, overrides: Overrides) -> tuple[int, ...] | None:
    """The shape the user gave for this input, checked against what the file fixes."""
    shape = overrides.shapes.get(port.name)
    if shape is None:
        return None
    dims = port.dims
    fits = len(shape) == len(dims) and all(
        isinstance(dim, str) or dim == size for dim, size in zip(dims, shape, strict=True)
    )
    if not fits:
        raise ConfigError(
            f"shapes: {list(shape)} does not fit {port}; give the {len(dims)} dimensions after the batch dimension"
        )
    return shape


def _picture_size(
    picture: Picture, dims: tuple[int | str, ...], metadata: Metadata, overrides: Overrides
) -> tuple[tuple[int, int], bool]:
    """Height and width of a row, and whether they were guessed. What the graph fixes goes first."""
    fixed = tuple(dims[axis] for axis in picture.axes)
    wanted = overrides.imgsz or metadata.imgsz or (DEFAULT_SIDE, DEFAULT_SIDE)
    size = tuple(own if isinstance(own, int) else asked for own, asked in zip(fixed, wanted, strict=True))
    if overrides.imgsz is not None and size != overrides.imgsz:
        raise ConfigError(
            f"imgsz {list(overrides.imgsz)} does not fit the model: its input {picture.port} is fixed to {list(size)}"
        )
    open_ = any(isinstance(side, str) for side in fixed)
    return (size[0], size[1]), open_ and overrides.imgsz is None and metadata.imgsz is None


def _with_size(picture: Picture, dims: tuple[int | str, ...], size: tuple[int, int]) -> tuple[int | str, ...]:
    settled = list(dims)
    if settled[picture.channel] not in (picture.channels, picture.port.dims[picture.channel]):
        raise ConfigError(f"shapes: {list(dims)} does not fit a picture, which has 3 channels; or set task = tensor")
    settled[picture.channel] = picture.channels
    for axis, side in zip(picture.axes, size, strict=True):
        settled[axis] = side
    return tuple(settled)


def _symbols(inputs: tuple[Port, ...], settled: dict[str, tuple[int | str, ...]]) -> dict[str, int]:
    """The size of every symbol that some input has settled: the same symbol is the same size in all inputs."""
    return {
        symbol: size
        for port in inputs
        for symbol, size in zip(port.dims, settled[port.name], strict=True)
        if isinstance(symbol, str) and isinstance(size, int) and symbol != NAMELESS
    }


def _closed(port: Port, dims: tuple[int | str, ...], symbols: dict[str, int]) -> tuple[int, ...]:
    """`dims` with every dimension a number: by its symbol, by what families know of an input, or it must be given."""
    known = {TARGET_SIZES: 2, PIXEL_MASK: _MASK_SIDE, SCALE_FACTOR: 2, PICTURE_SHAPE: 2}.get(port.name)
    closed = [symbols.get(dim, known) if isinstance(dim, str) else dim for dim in dims]
    if None in closed:
        example = ", ".join(str(dim) if isinstance(dim, int) else "?" for dim in dims)
        raise ModelRejected(
            f"input {port} leaves dimensions open besides the batch; "
            f"give them with shapes = {{{port.name} = [{example}]}}, without the batch dimension"
        )
    shape = tuple(dim for dim in closed if dim is not None)
    if any(dim < 1 for dim in shape):
        raise ModelRejected(f"input {port} has a dimension without elements; expected 1 or more")
    return shape


def _check_bytes(inputs: tuple[Port, ...], shapes: Shapes) -> None:
    total = sum(math.prod(shapes[port.name]) * np.dtype(port.dtype).itemsize for port in inputs)
    if total > MOST_BYTES:
        raise ModelRejected(
            f"one job's inputs take {total >> 20} MiB; expected at most {MOST_BYTES >> 20} MiB: "
            "export the model with smaller inputs, or give smaller imgsz or shapes"
        )
