"""Decode workers: from payloads to rows."""

from __future__ import annotations

import logging
import time

import msgspec

from parallel_infer.errors import InferError
from parallel_infer.ipc.messages import (
    Decoded,
    DecodeFailed,
    DecodeLease,
    ModelAdded,
    ModelRemoved,
    Register,
    Started,
    ToDecodeWorker,
)
from parallel_infer.loading import load_by_name
from parallel_infer.process.child import Child
from parallel_infer.process.native_output import NativeOutput
from parallel_infer.process.options import DecodeOptions
from parallel_infer.process.sandbox.confinement import confine_decoder
from parallel_infer.shm.ring import Ring
from parallel_infer.worker.loop import INTERNAL, WorkerProcess, run
from parallel_infer.worker.payloads import Payloads

log = logging.getLogger(__name__)


class DecodeWorker(WorkerProcess[ToDecodeWorker]):
    """Decodes payloads into rows."""

    stage = "decode"

    def __init__(self, child: Child, options: DecodeOptions) -> None:
        # First of all, while there is one thread and nothing of a stranger's was read.
        package = options.stage.partition(".")[0]
        self._confined = confine_decoder(options.max_pixels, {package}, options.kept) if options.confined else ""
        super().__init__(child, options, ToDecodeWorker)
        limits = {"max_pixels": options.max_pixels, "formats": options.formats, "kept": options.kept}
        self._stage = load_by_name(options.stage)(limits)
        self._native = NativeOutput()
        self._rings: dict[str, Ring] = {}
        self._payloads = Payloads()

    def _take(self, message: ToDecodeWorker) -> None:
        match message:
            case DecodeLease():
                self._decode(message)
                self._flush_if_due()
                self._native.log()
            case ModelAdded():
                if message.plan.key not in self._rings:  # else an earlier dispatcher has told it already
                    self._stage.add(message.plan)
                    self._rings[message.plan.key] = Ring.attach(message.plan.rows)
            case ModelRemoved():
                self._stage.remove(message.model)
                self._rings.pop(message.model).close()
            case Register():
                self._stage.forget(None)  # a new dispatcher knows of no picture that is kept
                self._take_common(message)
            case _:
                self._take_common(message)

    def _started(self) -> Started:
        return Started(confined=self._confined)

    def _decode(self, lease: DecodeLease) -> None:
        started = time.monotonic()
        if lease.done:
            self._stage.forget(lease.done)
        rows = self._rings[lease.model].arrays
        row = {name: array[lease.row, ...] for name, array in rows.items()}
        try:
            payload = self._payloads.read(lease.ref)
            told = lease.kind, lease.tensors, payload, lease.options, row, lease.part
            written = self._stage.decode(lease.model, *told, keep=lease.keep)
        except InferError as error:
            self._link.send(DecodeFailed(lease.lease, error.code, str(error), started, time.monotonic() - started))
        except Exception:
            log.exception("decoding failed in a way nobody foresaw")
            self._link.send(DecodeFailed(lease.lease, InferError.code, INTERNAL, started, time.monotonic() - started))
        else:
            seconds = time.monotonic() - started
            done = Decoded(lease.lease, tuple(written.geometry), started, seconds, written.kept, written.reused)
            self._link.send(done)


def main(child: Child, encoded: bytes) -> None:
    """Entry point of a decode worker."""
    run(DecodeWorker(child, msgspec.msgpack.decode(encoded, type=DecodeOptions)))
