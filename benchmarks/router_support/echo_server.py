"""A member without models or workers, in a process of its own: it answers each job with its payload after a while.

    python echo_server.py ADDRESS SECONDS BATCH [MODEL ...]

Prints its address when it listens. It sleeps SECONDS for BATCH jobs at a time; BATCH 0: for any number of jobs at once.
"""

from __future__ import annotations

import heapq
import math
import sys
import time
from collections import deque
from secrets import token_hex
from typing import Any

import msgpack
import zmq

Message = list[bytes]


class EchoServer:
    """Answers with what it was sent."""

    def __init__(self, address: str, seconds: float, batch: int, models: list[str]) -> None:
        self._socket = zmq.Context().socket(zmq.ROUTER)
        self._socket.bind(address)
        self._seconds = seconds
        self._batch = batch
        self._models = models
        self._instance = token_hex(8)
        self._waiting: deque[Message] = deque()
        self._due: list[tuple[float, int, Message]] = []
        self._count = 0
        self._ready_at = 0.0  # when the batch that is at work is over

    @property
    def address(self) -> str:
        """Where it listens."""
        endpoint = self._socket.last_endpoint
        assert isinstance(endpoint, bytes)
        return endpoint.decode().rstrip("\0")

    def run_forever(self) -> None:
        """Sleep until something comes or is due."""
        while True:
            self._start_batch()
            wait = None if not self._due else math.ceil(max(0.0, self._due[0][0] - time.monotonic()) * 1000)
            if self._socket.poll(wait):
                self._take(*self._socket.recv_multipart())
            while self._due and self._due[0][0] <= time.monotonic():
                self._socket.send_multipart(heapq.heappop(self._due)[2])

    def _take(self, client: bytes, header: bytes, payload: bytes = b"") -> None:
        request: dict[str, Any] = msgpack.unpackb(header) if header else {"type": "cancel"}
        if request["type"] == "infer":
            answer = {"task": "tensor", "model": request["model"], "arrays": [["y", "uint8", [len(payload)]]]}
            reply = {"v": 1, "id": request["id"], "type": "answer", "answer": answer, "timing": {}, "batch": 1}
            self._waiting.append([client, msgpack.packb(reply), payload])
        elif request["type"] != "cancel":
            reply = {"v": 1, "id": request["id"], "type": "result", "result": self._result(request["type"])}
            self._socket.send_multipart([client, msgpack.packb(reply)])

    def _start_batch(self) -> None:
        now = time.monotonic()
        if self._batch and (now < self._ready_at or not self._waiting):
            return
        count = min(self._batch or len(self._waiting), len(self._waiting))
        self._ready_at = now + self._seconds
        for _ in range(count):
            self._count += 1
            heapq.heappush(self._due, (self._ready_at, self._count, self._waiting.popleft()))

    def _result(self, kind: str) -> Any:
        match kind:
            case "hello":
                return {"max_payload": 32 << 20, "max_message": 64 << 20, "instances": [self._instance]}
            case "models":
                return [{"name": name, "digest": "", "warnings": []} for name in self._models]
            case "ready":
                states = dict.fromkeys(self._models, "ready")
                return {"ready": True, "models": states, "states": states}
        return {}


def main() -> None:
    """Listen, say so, and answer."""
    address, seconds, batch, *models = sys.argv[1:]
    server = EchoServer(address, float(seconds), int(batch), models)
    print(server.address, flush=True)
    server.run_forever()


if __name__ == "__main__":
    main()
