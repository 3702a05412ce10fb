"""What is tried for each peer before it is measured: copies of the model, threads of each, batch size and batch delay.

The best of a short trial is what the peer is measured with, per model. Our server runs as it starts, unless it is
to be tuned in the same way (`run.py --tune-ours`).
"""

from __future__ import annotations

from typing import NamedTuple

from parallel_infer.machine.cores import usable_cores


class Setting(NamedTuple):
    """One way to start a peer."""

    workers: int
    threads: int
    batch: int = 8
    delay_ms: float = 2.0
    split: bool = False
    callers: int = 1  # processes that lead requests through a chain

    def __str__(self) -> str:
        text = f"{self.workers} x {self.threads} threads"
        if self.batch > 1:
            text += f", batch {self.batch} within {self.delay_ms:g} ms"
        text += f", {self.callers} callers" if self.callers > 1 else ""
        return text + (", decoders apart" if self.split else "")


def our_settings() -> tuple[tuple[str, ...], ...]:
    """Options of our server to try where it is to be tuned too. Its defaults come first."""
    cores = usable_cores()
    shapes = dict.fromkeys(((cores, 1), (cores, cores)))
    return ((), *(("--instances", str(copies), "--threads", str(threads)) for copies, threads in shapes))


def settings(peer: str, work: str = "server") -> tuple[Setting, ...]:
    """One big copy; a copy per core, with batches that wait little or long, and without; more threads than cores.

    Of a chain: few requests under way and many, decoded by those who lead them or by a model of its own.
    """
    cores = usable_cores()
    per_core = Setting(cores, 1)
    if work == "chain":
        few, many = 2 * cores, 8 * cores
        return (
            per_core._replace(callers=few),
            per_core._replace(callers=many),
            per_core._replace(callers=many, delay_ms=10.0),
            Setting(1, cores, callers=many),
            Setting(cores, cores, callers=many),
            per_core._replace(callers=many, split=True),
        )
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
