"""What computes a model: ONNX Runtime, or OpenVINO by itself where ONNX Runtime cannot reach it.

An engine is a loaded model. It trusts its callers: `parallel_infer.inference.session` has checked shapes and dtypes,
and makes the errors of a library ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy.typing as npt

from parallel_infer.inference.engines.stop import Stop
from parallel_infer.inference.signature import Signature

Array = npt.NDArray[Any]

__all__ = ["Array", "BoundRun", "Engine", "Stop", "address_of"]


class BoundRun(Protocol):
    """A run bound to memory; may run again and again, in one thread at a time."""

    def run(self, stop: Stop, *, prompt: bool) -> list[Array]:
        """Writes what has memory of its own in place, and gives the rest, in the order it was asked for.

        Where `prompt` is False, nobody counts on `stop`, and a quicker way that it does not end may be taken.
        """
        ...


class Engine(Protocol):
    """A loaded model. Runs may go on in several threads at once."""

    signature: Signature

    @property
    def at_once(self) -> int:
        """Runs that are worth beginning before the first of them is over; each takes a buffer set of its own."""
        ...

    @property
    def metadata(self) -> dict[str, str]:
        """The custom metadata of the file."""
        ...

    def run(self, inputs: Mapping[str, Array], stop: Stop) -> list[Array]:
        """All outputs in the order of the signature, in arrays of their own."""
        ...

    def bind(
        self, inputs: Mapping[str, Array], fixed: Mapping[str, Array], fresh: Sequence[str], buffer_set: int = 0
    ) -> BoundRun:
        """A run that reads `inputs` and writes outputs to `fixed` where they lie; outputs in `fresh` get memory.

        `buffer_set` tells apart the memory of the device, where it has its own, for runs that are under way at once.
        """
        ...

    def lock_pages(self, arrays: Iterable[Array]) -> None:
        """Make ready memory that runs will read and write for as long as this engine is open."""
        ...

    def is_lost(self) -> bool:
        """Whether the device will answer this process with nothing but errors, asked after one."""
        ...

    def close(self) -> None:
        """Let go of memory of the caller."""
        ...

    def end_profile(self) -> str:
        """Writes the profile and gives its file name."""
        ...


def address_of(array: Array) -> int:
    """Where the first byte of `array` lies in memory."""
    address: int = array.__array_interface__["data"][0]
    return address
