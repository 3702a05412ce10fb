"""Where the batch stands in each input, as the file declares it. Nothing here is believed before it is proven."""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

from parallel_infer.errors import ModelRejected
from stages.recognise.trial import NAMELESS, Port

Shape = tuple[int, ...]

_LEAST_SIDE = 16  # of a picture, in pixels
_BATCH_NAME = re.compile(r"batch|^(n|b|bs)$", re.IGNORECASE)


class Declared(Struct, frozen=True):
    """What the inputs say of the batch."""

    axes: dict[str, int | None]  # by input: where the batch stands; None where the input has none
    symbol: str | None  # its name, where it has one
    size: int | None  # what the file fixes; None where it is open
    because: str = ""  # which tensor fixes it

    @property
    def leads(self) -> bool:
        """Whether the batch is the first dimension of every input, so that rows of a ring are a batch."""
        return set(self.axes.values()) == {0}


def declared_batch(inputs: tuple[Port, ...], shapes: Mapping[str, Shape]) -> Declared:
    """Read it from the names and sizes of the inputs' dimensions, and from the `shapes` that the user gives.

    Raises ModelRejected for a batch of no jobs.
    """
    ranked = [port for port in inputs if port.dims and not _given_whole(port, shapes) and not _is_bare_picture(port)]
    symbol = _symbol(ranked)
    if symbol is None and not any(isinstance(port.dims[0], str) for port in ranked):
        return _fixed(inputs, ranked)
    axes: dict[str, int | None] = {port.name: None for port in inputs}
    for port in ranked:
        axes[port.name] = _axis(port, symbol, shapes.get(port.name))
    # A first dimension of 1 beside open ones: that input takes one job at a time, and so does the model.
    single = [port.name for port in ranked if axes[port.name] == 0 and port.dims[0] == 1]
    because = f"{single[0]} has a fixed batch of 1" if single else ""
    return Declared(axes, symbol, 1 if single else None, because)


def whole(inputs: tuple[Port, ...]) -> Declared:
    """For inputs whose dimensions are all those of one job."""
    return Declared({port.name: None for port in inputs}, None, 1)


def without(dims: tuple[int | str, ...], axis: int | None) -> tuple[int | str, ...]:
    """The dimensions of one job."""
    return dims if axis is None else (*dims[:axis], *dims[axis + 1 :])


def _given_whole(port: Port, shapes: Mapping[str, Shape]) -> bool:
    """Whether the user gave a size for each dimension, and so says that there is no batch among them."""
    given = shapes.get(port.name, ())
    return len(given) == len(port.dims) and given[0] != 1 and _agree(port.dims, given)


def _is_bare_picture(port: Port) -> bool:
    """Whether this is one picture, [3, h, w] or [h, w, 3], and no batch of anything."""
    if len(port.dims) != 3 or not (port.dtype == "uint8" or port.dtype.startswith("float")):
        return False
    sides = port.dims[1:] if port.dims[0] == 3 else port.dims[:2] if port.dims[2] == 3 else ()
    is_open = all(isinstance(side, str) and side != NAMELESS and not _BATCH_NAME.search(side) for side in sides)
    is_large = all(isinstance(side, int) and side >= _LEAST_SIDE for side in sides)
    return bool(sides) and (is_open or is_large)


def _symbol(ports: list[Port]) -> str | None:
    """The name of the batch: one that says so wherever it stands, else that of the first open first dimension."""
    named = [dim for port in ports for dim in port.dims if isinstance(dim, str) and dim != NAMELESS]
    telling = [dim for dim in named if _BATCH_NAME.search(dim)]
    first = [port.dims[0] for port in ports if isinstance(port.dims[0], str)]
    if first and first[0] in telling:
        return str(first[0])
    if telling:
        return telling[0]
    return str(first[0]) if first and first[0] != NAMELESS else None


def _axis(port: Port, symbol: str | None, given: Shape | None) -> int | None:
    if symbol in port.dims:
        return port.dims.index(str(symbol))
    if isinstance(port.dims[0], str):
        return 0
    open_ = [axis for axis, dim in enumerate(port.dims) if isinstance(dim, str)]
    if given is not None:
        open_ = [axis for axis in open_ if _agree(without(port.dims, axis), given)]
    if open_ and (given is not None or (len(open_) == 1 and port.dims[open_[0]] == NAMELESS)):
        return open_[0]
    return 0 if port.dims[0] == 1 else None


def _agree(dims: tuple[int | str, ...], shape: Shape) -> bool:
    return len(dims) == len(shape) and all(
        isinstance(dim, str) or dim == size for dim, size in zip(dims, shape, strict=True)
    )


def _fixed(inputs: tuple[Port, ...], ranked: list[Port]) -> Declared:
    """No first dimension is open: all the same number is a batch, if it proves to be one."""
    sizes = {int(port.dims[0]) for port in ranked}
    for port in ranked:
        if int(port.dims[0]) < 1:
            raise ModelRejected(f"{port.name!r} has a batch of {port.dims[0]}; expected 1 or more, or any")
    if len(sizes) == 1 and len(ranked) == len(inputs):
        size = sizes.pop()
        return Declared({port.name: 0 for port in inputs}, None, size, f"{ranked[0].name} has a fixed batch of {size}")
    first = {port.name: 0 if port in ranked and port.dims[0] == 1 else None for port in inputs}
    return Declared(first, None, 1, "its inputs differ in their first dimension")
