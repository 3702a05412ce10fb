"""Readiness: not a flag but a synthetic job through every stage of every model."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from struct import pack
from typing import Any

import msgspec

from parallel_infer import protocol
from parallel_infer.messages import ModelOpened, PayloadKind
from parallel_infer.protocol import Tensor

TIMEOUT = 5.0  # seconds a synthetic job may take
_decode = msgspec.msgpack.Decoder(protocol.Answer | protocol.Error).decode


def synthetic_job(opened: ModelOpened) -> tuple[PayloadKind, tuple[Tensor, ...], bytes]:
    """A job for a model: a small picture, or zeros where the model takes tensors."""
    spec = opened.plan.spec
    if spec.preprocess:
        return PayloadKind.PICTURE, (), _PNG
    tensors = tuple(Tensor(tensor.name, tensor.dtype, tensor.shape) for tensor in spec.inputs)
    return PayloadKind.TENSORS, tensors, bytes(spec.row_size)


class ReadinessCheck:
    """One check under way. It stands where a door stands for a client's job, and counts what comes back."""

    def __init__(self, models: list[str], done: Callable[[dict[str, Any]], None]) -> None:
        self._done = done
        self._waiting = dict(enumerate(models, start=1))
        self._states: dict[str, str] = {}
        if not models:
            done({"ready": False, "models": {}})

    def send(self, frames: list[Any]) -> None:
        """Take a reply, as a door would."""
        reply = _decode(frames[1])
        self.settle(reply.id, "ready" if isinstance(reply, protocol.Answer) else f"{reply.code}: {reply.message}")

    def settle(self, request: int, state: str) -> None:
        """The synthetic job of one model has ended."""
        model = self._waiting.pop(request, None)
        if model is None:
            return
        self._states[model] = state
        if not self._waiting:
            ready = all(found == "ready" for found in self._states.values())
            self._done({"ready": ready, "models": self._states})


def _chunk(kind: bytes, body: bytes) -> bytes:
    return pack(">I", len(body)) + kind + body + pack(">I", zlib.crc32(kind + body))


_PNG = (  # 8x8 gray pixels
    b"\x89PNG\r\n\x1a\n"
    + _chunk(b"IHDR", pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    + _chunk(b"IDAT", zlib.compress((b"\x00" + b"\x72" * 8) * 8))
    + _chunk(b"IEND", b"")
)
