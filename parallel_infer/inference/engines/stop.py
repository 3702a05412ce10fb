"""Ends a run that another thread is in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from parallel_infer.inference.ort import ort


class Stop:
    """Ends one run from another thread. A run that was given a set `Stop` ends at its next operator, with `Dropped`."""

    __slots__ = ("_cancel", "_lock", "options")

    def __init__(self) -> None:
        self.options = ort.RunOptions()
        # Without this entry every bound run looks it up in vain, which costs ten times the run itself.
        self.options.add_run_config_entry("gpu_graph_id", "-1")
        self._cancel: Callable[[], object] | None = None
        self._lock = threading.Lock()

    def set(self) -> None:
        with self._lock:
            self.options.terminate = True
            if self._cancel is not None:
                self._cancel()

    @property
    def is_set(self) -> bool:
        return bool(self.options.terminate)

    @contextmanager
    def calling(self, cancel: Callable[[], object]) -> Iterator[None]:
        """In here `set` also calls `cancel`, for what ONNX Runtime does not run; never once this has ended."""
        with self._lock:
            self._cancel = cancel
        try:
            yield
        finally:
            with self._lock:
                self._cancel = None
