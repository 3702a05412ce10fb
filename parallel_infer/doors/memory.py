"""Memory that the requests of a door may take all together. Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from parallel_infer.errors import BadInput, ResourceUnavailable


class Memory:
    """So many bytes, for whoever asks first."""

    def __init__(self, total: int, what: str, option: str) -> None:
        """`what` are the things that take it, in the plural; `option` is the setting of its size, in MB."""
        self.total = self.room = total
        self._what = what
        self._option = option

    def take(self, size: int) -> None:
        """Take `size` bytes. Raises ResourceUnavailable while others have them, BadInput where there are never so many.

        Each names the option.
        """
        if size > self.total:
            raise BadInput(
                f"this takes {size >> 20} MB of memory, more than all {self._what} may together (option {self._option})"
            )
        self.check(size)
        self.room -= size

    def check(self, size: int) -> None:
        """Raises ResourceUnavailable where there is no room for `size` bytes; none are taken."""
        if size > self.room:
            raise ResourceUnavailable(
                f"other {self._what} take all memory for them (option {self._option}); try again later"
            )

    def give_back(self, size: int) -> None:
        """`size` bytes are free again."""
        self.room += size

    @contextlib.contextmanager
    def held(self, size: int) -> Iterator[None]:
        """`size` bytes until the end. Raises what `take` does."""
        self.take(size)
        try:
            yield
        finally:
            self.give_back(size)
