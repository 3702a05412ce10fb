"""Readiness: not a flag but a synthetic job through every stage of every model."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from struct import pack
from typing import Any, NamedTuple

from parallel_infer.errors import ServerUnavailable, WorkerLost
from parallel_infer.ipc.messages import DispatcherStatus, ModelOpened, PayloadKind
from parallel_infer.model_spec import TensorSpec, is_hidden
from parallel_infer.protocol import Tensor

PATIENCE = 1.0  # seconds for the dispatcher to answer, and for a synthetic job besides what batches take
READY = "ready"
UNAVAILABLE = "unavailable"
_SERVED = (READY, "degraded")
_BATCHES = 3  # one at work, one that waits, and its own


def synthetic_job(opened: ModelOpened) -> tuple[PayloadKind, tuple[Tensor, ...], bytes]:
    """A job for a model: a small picture, or where it takes tensors zeros, and numbers that it does not refuse."""
    spec = opened.plan.spec
    if spec.preprocess:
        return PayloadKind.PICTURE, (), _PNG
    tensors = tuple(Tensor(tensor.name, tensor.dtype, tensor.shape) for tensor in spec.inputs)
    return PayloadKind.TENSORS, tensors, b"".join(map(_usual, spec.inputs))


def _usual(tensor: TensorSpec) -> bytes:
    """What stands in for one input: the only whole number there is, or zeros."""
    return tensor.usual.to_bytes(tensor.size, "little") if tensor.usual else bytes(tensor.size)


class SyntheticJob(NamedTuple):
    """A job to be sent; its reply goes to the check."""

    check: ReadinessCheck
    number: int
    model: str
    patience: float  # seconds it may take
    until: float  # it may wait for a slot

    def answer(self, body: bytes, payload: Any, timing: dict[str, float], batch: int) -> int:
        """It came through every stage."""
        self.check.settle(self.number, READY)
        return 0

    def error(self, code: str, text: str, reason: str = "", retry_after: float = 0.0) -> None:
        """It did not come through, or could not be sent."""
        self.check.settle(self.number, f"{code}: {text}")


class ReadinessCheck:
    """One check under way: first what the dispatcher says, then a synthetic job through every stage of every model.

    `done` gets the result, once.
    """

    def __init__(self, models: list[str], deadline: float, done: Callable[[dict[str, Any]], None]) -> None:
        self.deadline = deadline  # until when the dispatcher must have answered
        self._models = models
        self._done = done
        self._waiting: dict[int, str] = {}
        self._found: dict[str, str] = {}
        self._states: dict[str, str] = {}
        self._doors: dict[str, str] = {}

    def begin(self, status: DispatcherStatus, now: float) -> list[SyntheticJob]:
        """Judge by what the dispatcher said; the jobs to send next, none where no job would get through."""
        self._states = states(status)
        self._doors = {
            name: READY if door.state == "up" else f"{ServerUnavailable.code}: it is being started"
            for name, door in status.doors.items()
        }
        stages = {worker.stage for worker in status.workers.values()}
        away = [stage for stage in ("decode", "postprocess") if stage not in stages]
        missing = f"no {' and no '.join(away)} worker is up" if away else ""
        for name in self._models:
            state = self._states.get(name, "")
            if not state:
                self._found[name] = f"{ServerUnavailable.code}: the server is recovering"
            elif state == UNAVAILABLE or missing:
                self._found[name] = f"{WorkerLost.code}: {missing or 'none of its workers is up'}"
        if self._found or not self._models:
            self._finish({name: "not tried" for name in self._models if name not in self._found})
            return []
        self._waiting = dict(enumerate(self._models, start=1))
        return [
            SyntheticJob(self, number, name, _patience(status, name), now + PATIENCE)
            for number, name in self._waiting.items()
        ]

    def give_up(self) -> None:
        """The dispatcher did not answer in time."""
        self._finish(dict.fromkeys(self._models, f"{ServerUnavailable.code}: the dispatcher does not answer"))

    def settle(self, request: int, outcome: str) -> None:
        """The synthetic job of one model has ended."""
        model = self._waiting.pop(request, None)
        if model is None:
            return
        self._found[model] = outcome
        if not self._waiting:
            self._finish({})

    def _finish(self, more: dict[str, str]) -> None:
        found = {**self._found, **more}
        ready = bool(found) and all(outcome == READY for outcome in (*found.values(), *self._doors.values()))
        doors = {"doors": self._doors} if self._doors else {}
        self._done({"ready": ready, "models": found, "states": self._states, **doors})


def states(status: DispatcherStatus) -> dict[str, str]:
    """The state of each model by name: of the version that is served, where another is being loaded or closed."""
    found: dict[str, str] = {}
    for model in status.models.values():
        state = model.state
        if not model.instances and state in _SERVED:
            state = UNAVAILABLE  # at once, whatever the supervisor still hopes
        if not is_hidden(model.name) and found.get(model.name) not in (*_SERVED, UNAVAILABLE):
            found[model.name] = state
    return found


def _patience(status: DispatcherStatus, name: str) -> float:
    """Seconds for a synthetic job, which goes first: it may meet a full batch at work and one that waits."""
    batches = [model.batch_seconds for model in status.models.values() if model.name == name]
    return PATIENCE + _BATCHES * max(batches, default=0.0)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return pack(">I", len(body)) + kind + body + pack(">I", zlib.crc32(kind + body))


_PNG = (  # 8x8 gray pixels
    b"\x89PNG\r\n\x1a\n"
    + _chunk(b"IHDR", pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    + _chunk(b"IDAT", zlib.compress((b"\x00" + b"\x72" * 8) * 8))
    + _chunk(b"IEND", b"")
)
