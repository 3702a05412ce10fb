"""The processes of a trial: infer workers with real sessions, and stand-ins for what else needs the cores.

    credits ──► decode x P ──► ready of each model ──► infer x N ──► done ──► rest x 3 ──► credits

A byte in a pipe is a picture that is under way: the number of its model. So many bytes as there are go round that
nobody waits for clients. The decode processes decode the picture that benchmarks send, the rest works as long as
gateway, dispatcher, postprocess workers and a client do on this project's machines.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct
from setproctitle import setproctitle

from parallel_infer.errors import InferError
from parallel_infer.ipc.messages import ModelPlan, PayloadKind
from parallel_infer.ipc.stages import BatchUnderWay
from parallel_infer.loading import load_by_name
from parallel_infer.model_files.location import ZOO
from parallel_infer.process.child import reason
from parallel_infer.process.logs import start_logging

_REST = 0.001  # seconds of processor time outside the stages, for one picture
_SIZE = (1280, 720)  # width and height of the picture that is decoded
_QUALITY = 90  # of JPEG, 0 to 100
_FEWEST = 3  # batches that are counted, however long they take
_OUTPUTS = 2  # output slots of a session: batches that may be under way
_LONGEST = 4.0  # times the seconds of a round that these may take


class Code(Struct, frozen=True):
    """Where the code of the stages is, as "module:name"."""

    infer: str
    decode: str
    policy: str


class Job(Struct, frozen=True, kw_only=True):
    """The first message to a process of a trial: what it is."""

    work: str  # "infer", "decode" or "rest"
    code: Code
    log_format: str
    log_level: str
    model: int = 0  # of an infer worker: its number
    plans: tuple[ModelPlan, ...] = ()  # of a decode process, by number
    taken: str  # the pipe that bytes are taken from
    given: tuple[str, ...]  # where they go: one pipe, or one for each model


class Load(Struct, frozen=True, tag="load"):
    """Load a session and run it a few times; `Loaded` or `Failed` follows."""

    session: int  # the number it gets
    plan: ModelPlan


class Run(Struct, frozen=True, tag="run"):
    """Run a session that was loaded, on whatever is ready: `warm` seconds uncounted, then as long as it says."""

    session: int
    warm: float
    seconds: float


class Loaded(Struct, frozen=True, tag="loaded"):
    """A session is loaded. `target` is the batch size worth having, `seconds` what such a batch takes alone."""

    target: int
    seconds: float


class Failed(Struct, frozen=True, tag="failed"):
    """A session could not be loaded, or did not run."""

    text: str


class Ran(Struct, frozen=True, tag="ran"):
    """Rows per second."""

    rate: float


class Ready(Struct, frozen=True, tag="ready"):
    """A stand-in takes pictures from now on."""


Order = Load | Run
Report = Loaded | Failed | Ran | Ready


class _Arrays:
    """Memory in place of a ring."""

    def __init__(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self.arrays = arrays


def main(connection: Connection) -> None:
    """Entry point of every process of a trial. It is killed when the trial is over."""
    job = msgspec.msgpack.decode(connection.recv_bytes(), type=Job)
    setproctitle(f"parallel-infer: trial {job.work}")
    start_logging(job.log_format, job.log_level, f"trial {job.work}")
    match job.work:
        case "infer":
            _Infer(job, connection).run_forever()
        case "decode":
            _pass_on(job, connection, _decoding(job))
        case _:
            _pass_on(job, connection, lambda _: _spend(_REST))


class _Infer:
    """An infer worker: one model, a session for each setting that is tried."""

    def __init__(self, job: Job, connection: Connection) -> None:
        self._job = job
        self._connection = connection
        self._taken = _open(job.taken)
        self._given = _open(job.given[0])
        self._sessions: dict[int, tuple[Any, int, int]] = {}  # by number: stage, target, rows that there are

    def run_forever(self) -> None:
        decode = msgspec.msgpack.Decoder(Order).decode
        while True:
            order = decode(self._connection.recv_bytes())
            try:
                report: Report = self._load(order) if isinstance(order, Load) else self._run(order)
            except Exception as error:  # of the libraries too: what does not run is no setting
                report = Failed(reason(error))
            self._connection.send_bytes(msgspec.msgpack.encode(report))

    def _load(self, order: Load) -> Loaded:
        plan = order.plan
        slots = 2 * plan.max_batch
        rows = {tensor.name: _noise(slots, tensor) for tensor in plan.rows.tensors}
        outputs = {tensor.name: np.zeros((_OUTPUTS, *tensor.shape), tensor.dtype) for tensor in plan.outputs.tensors}
        stage = load_by_name(self._job.code.infer)(plan, _Arrays(rows), _Arrays(outputs))
        policy = load_by_name(self._job.code.policy)(plan)
        policy.learn(*stage.warm_up())
        self._sessions[order.session] = stage, policy.target, slots
        return Loaded(policy.target, policy.expected(policy.target))

    def _run(self, order: Run) -> Ran:
        """Rows per second, from the end of the first counted batch to the end of the last."""
        stage, target, slots = self._sessions[order.session]
        begin = time.monotonic() + order.warm
        end, latest = begin + order.seconds, begin + order.seconds * _LONGEST
        under_way: deque[BatchUnderWay] = deque()
        first = last = 0.0
        batches, row, begun = 0, 0, 0
        while True:
            until = end if batches >= _FEWEST else latest
            if len(under_way) < (stage.at_once if _has_more(self._taken) else 1):
                if time.monotonic() >= until or not _take(self._taken, target, until):
                    break
                under_way.append(stage.begin(tuple(range(row, row + target)), begun % _OUTPUTS))
                row = row + target if row + 2 * target <= slots else 0
                begun += 1
                continue
            last = self._end(under_way.popleft(), target)
            if first:
                batches += 1
            elif last >= begin:
                first = last
        for batch in under_way:
            self._end(batch, target)
        return Ran(batches * target / (last - first) if batches else 0.0)

    def _end(self, batch: BatchUnderWay, target: int) -> float:
        """Wait for a batch and pass its pictures on; when it was over."""
        batch.wait()
        over = time.monotonic()
        failed = batch.finish().failed
        if failed:
            raise InferError(failed[0].text)
        os.write(self._given, bytes([self._job.model]) * target)
        return over


def _pass_on(job: Job, connection: Connection, work: Callable[[int], object]) -> None:
    """Take pictures, one after the other, do what is to be done for each, and pass them on."""
    taken, given = _open(job.taken), [_open(path) for path in job.given]
    connection.send_bytes(msgspec.msgpack.encode(Ready()))
    while True:
        select.select([taken], [], [])
        try:
            (model,) = os.read(taken, 1)
        except BlockingIOError:  # another one took it
            continue
        work(model)
        os.write(given[model] if len(given) > 1 else given[0], bytes([model]))


def _decoding(job: Job) -> Callable[[int], object]:
    """Decodes a picture as the model of that number wants it; a model of tensors takes none."""
    stage = load_by_name(job.code.decode)({"formats": ("jpeg",)})
    payload = memoryview(_picture())
    rows: list[dict[str, npt.NDArray[Any]] | None] = []
    for plan in job.plans:
        if plan.spec.preprocess:
            stage.add(plan)
        rows.append(
            {tensor.name: np.zeros(tensor.shape, tensor.dtype) for tensor in plan.rows.tensors}
            if plan.spec.preprocess
            else None
        )

    def decode(model: int) -> None:
        if (row := rows[model]) is not None:
            stage.decode(job.plans[model].key, PayloadKind.PICTURE, (), payload, b"\x80", row)

    return decode


def _picture() -> bytes:
    """A shipped picture as a JPEG of the size that benchmarks send."""
    import cv2

    frame = cv2.imread(str(ZOO / "pictures" / "coffee.png"))
    assert frame is not None  # it is shipped
    return bytes(cv2.imencode(".jpg", cv2.resize(frame, _SIZE), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1])


def _spend(seconds: float) -> None:
    """Use so much processor time."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def _noise(slots: int, tensor: Any) -> npt.NDArray[Any]:
    """Rows of noise where they are pixels, else of what stands in for a value that no job gives."""
    if tensor.dtype == "uint8":
        return np.random.default_rng(0).integers(0, 256, (slots, *tensor.shape), np.uint8)
    return np.full((slots, *tensor.shape), tensor.usual, tensor.dtype)


def _open(path: str) -> int:
    """Both ends of a named pipe, so that it is never at its end; read without waiting."""
    return os.open(Path(path), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def _has_more(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0])


def _take(descriptor: int, count: int, until: float) -> bool:
    """Take so many bytes; False where there are not as many in time."""
    while count:
        if not select.select([descriptor], [], [], max(0.0, until - time.monotonic()))[0]:
            return False
        try:
            count -= len(os.read(descriptor, count))
        except BlockingIOError:  # another one took them
            continue
    return True
