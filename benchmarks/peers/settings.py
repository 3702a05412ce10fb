"""What is tried for each peer before it is measured: copies of the model, threads of each, batch size and batch delay.

The best of a short trial is what the peer is measured with, per model. Our server gets no trial: it runs as it starts.
"""

from __future__ import annotations

from typing import NamedTuple

from parallel_infer.cores import usable_cores


class Setting(NamedTuple):
    """One way to start a peer."""

    workers: int
    threads: int
    batch: int = 8
    delay_ms: float = 2.0
    split: bool = False

    def __str__(self) -> str:
        text = f"{self.workers} x {self.threads} threads"
        if self.batch > 1:
            text += f", batch {self.batch} within {self.delay_ms:g} ms"
        return text + (", decoders apart" if self.split else "")


def settings(peer: str) -> tuple[Setting, ...]:
    """The settings to try. One big copy, a copy per core with batches that fill at once or wait, and without batches."""
    cores = usable_cores()
    per_core = Setting(cores, 1)
    if peer == "fastapi":  # it forms no batches
        return (Setting(1, cores, 1), Setting(cores, 1, 1), Setting(cores, cores, 1))
    tried = [
        Setting(1, cores),
        per_core,
        per_core._replace(delay_ms=10.0),
        per_core._replace(batch=1, delay_ms=0.0),
        Setting(cores, cores),
    ]
    if peer == "mosec":
        tried.append(Setting(1, cores, split=True))
    return tuple(dict.fromkeys(tried))
