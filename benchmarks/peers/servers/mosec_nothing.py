"""Mosec with a graph that does nothing: one tensor of bytes in, one byte out."""
# mypy: disable-error-code="import-not-found, misc"

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnxruntime as ort
from mosec import Server, Worker
from work import Setup

SETUP = Setup.from_environment()


class Infer(Worker):
    """The graph, a batch at a time."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(SETUP.model, options, providers=["CPUExecutionProvider"])

    def deserialize(self, data: bytes) -> bytes:
        return data

    def serialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: Any) -> Any:
        single = not isinstance(data, list)
        rows = np.stack([np.frombuffer(one, np.uint8) for one in ([data] if single else data)])
        found = [row.tobytes() for row in self._session.run(None, {"x": rows})[0]]
        return found[0] if single else found


if __name__ == "__main__":
    sys.argv += ["--address", "127.0.0.1", "--port", str(SETUP.port), "--log-level", "warning"]
    sys.argv += ["--timeout", str(SETUP.timeout_ms), "--capacity", str(SETUP.queue)]
    server = Server()
    delay = max(1, round(SETUP.delay_ms))
    server.append_worker(Infer, num=SETUP.workers, max_batch_size=SETUP.batch, max_wait_time=delay)
    server.run()
