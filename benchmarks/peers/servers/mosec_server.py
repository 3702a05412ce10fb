"""Mosec: one stage that does everything, or a stage of decoders before it (`split`)."""
# mypy: disable-error-code="import-not-found, misc"

from __future__ import annotations

import sys
from typing import Any

from mosec import Server, Worker
from work import Preparation, Row, Setup, Work

SETUP = Setup.from_environment()


class Decode(Worker):
    """Processes that only decode and resize."""

    def __init__(self) -> None:
        self._preparation = Preparation(SETUP)

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes) -> Row:
        return self._preparation.row(data)


class InferRows(Worker):
    """The model after `Decode`."""

    def __init__(self) -> None:
        self._work = Work(SETUP)

    def forward(self, data: Any) -> Any:
        return self._work.answers_to_rows(data) if isinstance(data, list) else self._work.answers_to_rows([data])[0]


class Infer(Worker):
    """Decoding and the model in one process."""

    def __init__(self) -> None:
        self._work = Work(SETUP)

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: Any) -> Any:
        return self._work.answers(data) if isinstance(data, list) else self._work.answers([data])[0]


if __name__ == "__main__":
    sys.argv += ["--address", "127.0.0.1", "--port", str(SETUP.port), "--log-level", "warning"]
    sys.argv += ["--timeout", str(SETUP.timeout_ms), "--capacity", str(SETUP.queue)]
    server = Server()
    if SETUP.split:
        server.append_worker(Decode, num=SETUP.workers)
    last = InferRows if SETUP.split else Infer
    delay = max(1, round(SETUP.delay_ms))  # Mosec takes whole milliseconds, at least one
    server.append_worker(last, num=SETUP.workers, max_batch_size=SETUP.batch, max_wait_time=delay)
    server.run()
