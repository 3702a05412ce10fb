"""A model's queue: by priority, then deadline; where a job stands in it is found without looking at the others."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from itertools import count
from math import inf

from parallel_infer.dispatcher.jobs import Job

_Key = tuple[int, float, int]


class Waiting:
    """Queued jobs in one sorted list, the next at its end: a place is found in O(log n), and made by one memmove."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, float, int, Job]] = []
        self._turns = count(1)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def head(self) -> Job | None:
        """The job whose turn it is."""
        return self._entries[-1][3] if self._entries else None

    def add(self, job: Job) -> None:
        """Queue a job behind those of higher priority, of earlier deadline, and of the same that came before."""
        job.turn = next(self._turns)
        insort(self._entries, (*_key(job), job))

    def first(self, deadline: float) -> Job | None:
        """The job whose turn it is of those with this deadline or a later one; None where there is none."""
        entries, end = self._entries, len(self._entries)
        while end:
            job = entries[end - 1][3]
            if job.admit.deadline >= deadline:
                return job
            # The next of the same priority, or else the first of a lower one, which is looked at in the same way.
            end = bisect_right(entries, (job.admit.priority, -deadline, 1), 0, end)
        return None

    @property
    def last(self) -> Job | None:
        """Of the jobs of the highest priority the one with most time left."""
        if not self._entries:
            return None
        return self._entries[bisect_left(self._entries, (self._entries[-1][0],))][3]

    def remove(self, job: Job) -> None:
        """Take a job off the queue, wherever it stands."""
        del self._entries[bisect_left(self._entries, _key(job))]

    def before(self, priority: int, deadline: float, start: float) -> int:
        """How many would come before a new job, leaving out those of its priority whose deadline is before `start`."""
        entries = self._entries
        higher = len(entries) - bisect_right(entries, (priority, inf))
        return higher + max(
            0, bisect_right(entries, (priority, -start, 1)) - bisect_left(entries, (priority, -deadline))
        )


def _key(job: Job) -> _Key:
    return job.admit.priority, -job.admit.deadline, -job.turn
