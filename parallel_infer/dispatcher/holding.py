"""Which queued jobs wait although their model has a row for them, so that their picture is decoded once.

All parts of a fan are decoded together, once each has a row. The first step of a chain is decoded when there is room to
keep its picture until the last object is cut out. Neither waits for longer than half of the time it has, nor makes a
job wait that comes after it and could have the row.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from parallel_infer.dispatcher.jobs import Job
from parallel_infer.dispatcher.model_queue import ModelQueue
from parallel_infer.dispatcher.pictures import SharedPictures


class Holding:
    """Says of the job whose turn it is whether it is held back."""

    def __init__(self, pictures: SharedPictures, models: Mapping[str, ModelQueue]) -> None:
        self._pictures = pictures
        self._models = models
        self.until = math.inf  # when the first that is held back has waited long enough

    def holds(self, served: ModelQueue, head: Job, decoders: Collection[bytes], now: float) -> bool:
        """Whether `head`, whose turn it is at `served`, is to wait."""
        part = head.admit.part
        if part is None or part.crop is not None or head.deaths:
            return False
        until = (head.admit.received + head.admit.deadline) / 2
        if now >= until:
            return False
        if not (part.selections and self._waits_for_room(served, decoders)) and not (
            part.together and self._waits_for_partner(served, head)
        ):
            return False
        self.until = min(self.until, until)
        return True

    def _waits_for_room(self, served: ModelQueue, decoders: Collection[bytes]) -> bool:
        """Whether no picture can be kept now, and nobody here could do without.

        A model that has few rows waits for its own pictures, not for others'.
        """
        if served.queued > served.cutting:
            return False
        return (served.is_busy or self._pictures.keeps(served.key)) and not self._pictures.with_room(decoders)

    def _waits_for_partner(self, served: ModelQueue, head: Job) -> bool:
        """Whether another part of its fan has no row yet, and nobody else here could use the row meanwhile."""
        full = {model.name for model in self._models.values() if not model.rows.free and model.instances}
        if not full or not any(other.served.name in full for other in self._pictures.queued_with(head)):
            return False
        if served.queued > served.fans.total():
            return False
        return all(any(name in full for name in fan) for fan in served.fans)


def with_rows(others: Iterable[Job], head: Job) -> list[Job]:
    """Those of the other jobs about a picture that can have a row too when `head` has one, and are no suspects."""
    taken = Counter([head.served])
    found = []
    for job in others:
        if not job.deaths and job.served.rows.free > taken[job.served]:
            taken[job.served] += 1
            found.append(job)
    return found
