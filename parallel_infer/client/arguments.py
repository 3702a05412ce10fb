"""Arguments of the client's calls, checked before anything is sent: a wrong one is a BadInput that names it."""

from __future__ import annotations

import numbers
import os
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar, cast, get_args

import numpy as np

from parallel_infer.chains.steps import JOIN
from parallel_infer.errors import BadInput
from parallel_infer.limits import MAX_NAME
from parallel_infer.protocol import LEAST_PRIORITY, MAX_SOURCE, MAX_STEPS, MOST_PRIORITY

Drop = Literal["none", "latest"]
Errors = Literal["raise", "return"]

_Call = TypeVar("_Call", bound=Callable[..., Any])


def checked_priority(priority: Any) -> int:
    """A priority on the wire. Raises BadInput for anything else."""
    if not _is_whole(priority) or not LEAST_PRIORITY <= int(priority) <= MOST_PRIORITY:
        raise BadInput(
            f"priority={priority!r:.50} is no whole number from {LEAST_PRIORITY} to {MOST_PRIORITY}; higher goes first"
        )
    return int(priority)


def checked_name(name: Any) -> str:
    """The name of a model. Raises BadInput for what cannot be one."""
    return _checked_text(name, "the model's name", 1, MAX_NAME)


def checked_names(model: Any) -> str:
    """The name of a model, or of several that are asked together: a list of names. Raises BadInput."""
    if not isinstance(model, (list, tuple)):
        return checked_name(model)
    if not model or len(set(map(str, model))) < len(model):
        raise BadInput(f"model={list(model)!r:.100} names no model, or one twice; give different names")
    names = [checked_name(name) for name in model]
    if joined := next((name for name in names if JOIN in name), None) if len(names) > 1 else None:
        raise BadInput(f"a model whose name has a {JOIN} in it, {joined!r}, cannot be asked together with others")
    return checked_name(JOIN.join(names))


def checked_steps(steps: Any) -> str:
    """The steps of a chain. Raises BadInput for what cannot be any."""
    return _checked_text(steps, "the steps of a chain", 1, MAX_STEPS)


def checked_source(source: Any) -> str:
    """The name of a live source. Raises BadInput for what cannot be one."""
    return _checked_text(source, "source", 0, MAX_SOURCE)


def checked_address(address: Any) -> str:
    """Where a server listens. Raises BadInput for what is no text."""
    if not isinstance(address, str):
        raise BadInput(f"address={address!r:.50} is no text; use tcp://HOST:PORT or ipc:///PATH/TO/SOCKET")
    return address


def checked_path(path: Any) -> str:
    """The path of a model on the server's machine. Raises BadInput for what is none."""
    found = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(found, str) or not found:
        raise BadInput(f"path={path!r:.50} is no path of a model file; give a text or a pathlib.Path")
    return found


def checked_in_flight(in_flight: Any, usual: int) -> int:
    """How many pictures may be under way at a time; `usual` for None. Raises BadInput for no such number."""
    if in_flight is None:
        return usual
    if not _is_whole(in_flight) or int(in_flight) < 1:
        raise BadInput(f"in_flight={in_flight!r:.50} is no whole number from 1 on; None takes {usual}")
    return int(in_flight)


def checked_drop(drop: Any) -> Drop:
    """What becomes of frames that wait. Raises BadInput for an unknown word."""
    if drop not in get_args(Drop) or not isinstance(drop, str):
        raise BadInput(f"drop={drop!r:.50} is not known; it is 'none' or 'latest'")
    return cast(Drop, drop)


def checked_errors(errors: Any) -> Errors:
    """What becomes of errors. Raises BadInput for an unknown word."""
    if errors not in get_args(Errors) or not isinstance(errors, str):
        raise BadInput(f"errors={errors!r:.50} is not known; it is 'raise' or 'return'")
    return cast(Errors, errors)


def checked_callback(callback: _Call | None) -> _Call | None:
    """What is called when a job is done. Raises BadInput for what cannot be called."""
    if callback is not None and not callable(callback):
        raise BadInput(f"callback={callback!r:.50} cannot be called; give a function of one argument")
    return callback


def checked_pictures(pictures: Any, name: str = "pictures") -> Any:
    """Several pictures. Raises BadInput for one picture, whose letters, bytes or rows would be taken for many."""
    one = isinstance(pictures, (str, os.PathLike, bytes, bytearray, memoryview, Mapping)) or hasattr(pictures, "read")
    frame = isinstance(pictures, np.ndarray) and pictures.dtype == np.uint8 and _is_one(pictures.shape)
    if one or frame:
        kind = f"an array of shape {list(pictures.shape)}" if frame else f"a {type(pictures).__name__}"
        raise BadInput(f"{name} is {kind}, one picture and not many; put it into a list, or use infer")
    if not isinstance(pictures, (Iterable, AsyncIterable)) and not hasattr(pictures, "__getitem__"):
        raise BadInput(f"{name}={pictures!r:.50} is nothing that pictures can be taken from, one after the other")
    return pictures


def checked_plain(pictures: Any, name: str = "pictures") -> Any:
    """The same for a client whose calls block. Raises BadInput for what only an event loop can iterate over."""
    if isinstance(pictures, AsyncIterable) and not isinstance(pictures, Iterable):
        raise BadInput(f"{name} is a {type(pictures).__name__}, which only AsyncClient takes; give a plain iterable")
    return checked_pictures(pictures, name)


def _is_one(shape: tuple[int, ...]) -> bool:
    """Whether an array of bytes is encoded bytes [n], gray [h, w] or [h, w, channels]."""
    return len(shape) < 3 or (len(shape) == 3 and shape[2] <= 4)


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _checked_text(value: Any, what: str, least: int, most: int) -> str:
    if not isinstance(value, str) or not least <= len(value) <= most:
        found = f"{len(value)} characters" if isinstance(value, str) else f"a {type(value).__name__}"
        raise BadInput(f"{what} is a text of {least} to {most} characters, not {found}")
    return value
