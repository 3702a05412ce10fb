"""Pictures that several jobs are about: which decode worker has their pixels, and until when somebody needs them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection

from parallel_infer.dispatcher.estimate import learned
from parallel_infer.dispatcher.jobs import Job, JobState

_NEEDED = (JobState.QUEUED, JobState.DECODING)


class SharedPicture:
    """One picture, while a job about it is in flight or more may come."""

    __slots__ = ("holder", "is_open", "jobs", "model", "size")

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}
        self.is_open = False  # objects may be cut out of it later
        self.holder = b""  # the decode worker that has its pixels, or is to keep them; empty: nobody
        self.model = ""  # whose job it was kept with
        self.size = 0  # bytes that they take there; 0: it has not said yet


class SharedPictures:
    """All of them. Each decode worker keeps pixels in `limit` bytes at most, and forgets what it is told to."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pictures: dict[int, SharedPicture] = {}
        self._done: defaultdict[bytes, list[int]] = defaultdict(list)  # by worker, what it need not keep any more
        self._used: Counter[bytes] = Counter()  # bytes, by worker
        self._promised: Counter[bytes] = Counter()  # pictures that a worker is to keep and has not decoded yet
        self._of_model: Counter[str] = Counter()  # pictures that are kept, by model
        self._usual = 0.0  # bytes of a picture: at least those of the last one

    def __len__(self) -> int:
        """Pictures that jobs are about, or that are kept."""
        return len(self._pictures)

    def enter(self, job: Job) -> None:
        """A job is in flight."""
        part = job.admit.part
        if part is not None:
            shared = self._pictures.setdefault(part.picture, SharedPicture())
            shared.jobs[job.admit.job] = job
            shared.is_open |= bool(part.selections)

    def leave(self, job: Job) -> None:
        """A job is in flight no more."""
        part = job.admit.part
        if part is not None and (shared := self._pictures.get(part.picture)) is not None:
            shared.jobs.pop(job.admit.job, None)
            self._settle(part.picture, shared)

    def queued_with(self, job: Job) -> list[Job]:
        """The other jobs about the same picture that wait for decoding."""
        part = job.admit.part
        if part is None or (shared := self._pictures.get(part.picture)) is None:
            return []
        return [other for other in shared.jobs.values() if other.state == JobState.QUEUED and other is not job]

    def holder(self, job: Job) -> bytes:
        """The worker that has the pixels a job is about; empty: none has, and they have to be decoded."""
        part = job.admit.part
        shared = None if part is None else self._pictures.get(part.picture)
        return b"" if shared is None else shared.holder

    def hold(self, jobs: list[Job], worker: bytes) -> bool:
        """Whether a worker that is given all these jobs about one picture is to keep its pixels for others."""
        part = jobs[0].admit.part
        if part is None or not self._limit or (shared := self._pictures.get(part.picture)) is None:
            return False
        if shared.holder:
            return shared.holder == worker
        if not shared.is_open and len(self.queued_with(jobs[0])) < len(jobs):
            return False
        shared.holder, shared.model = worker, jobs[0].served.key
        self._promised[worker] += 1
        self._of_model[shared.model] += 1
        return True

    def decoded(self, job: Job, worker: bytes, kept: int) -> None:
        """A worker is through with a job, and keeps the pixels of its picture in so many bytes; 0: it does not."""
        part = job.admit.part
        shared = None if part is None else self._pictures.get(part.picture)
        if part is None or shared is None or shared.holder != worker:
            if part is not None and kept:
                self._done[worker].append(part.picture)  # everybody who wanted them is gone
            return
        if kept and not shared.size:
            self._promised[worker] -= 1
            shared.size = kept
            self._used[worker] += kept
            self._usual = max(kept, learned(self._usual, kept, 0.1))
        elif not kept:
            self._free(shared)
        self._settle(part.picture, shared, job)

    def all_cut(self, number: int) -> None:
        """Nothing more will be cut out of a picture than what jobs in flight ask for."""
        if (shared := self._pictures.get(number)) is not None:
            shared.is_open = False
            self._settle(number, shared)

    def close(self) -> None:
        """Nothing more will be cut out of any: whoever asked is gone."""
        for number in list(self._pictures):
            self.all_cut(number)

    def lost(self, worker: bytes) -> None:
        """A decode worker is dead, and its memory gone."""
        self._done.pop(worker, None)
        for number, shared in list(self._pictures.items()):
            if shared.holder == worker:
                self._free(shared)
                self._settle(number, shared)
        del self._used[worker], self._promised[worker]

    def done(self, worker: bytes) -> tuple[int, ...]:
        """What a worker need not keep any more; it is told once."""
        return tuple(self._done.pop(worker, ())) if self._done else ()

    def with_room(self, workers: Collection[bytes]) -> Collection[bytes]:
        """The workers that can keep one more picture; all of them where no picture can be kept at all."""
        if not self._limit or self._usual > self._limit:
            return workers
        return [name for name in workers if self._used[name] + (self._promised[name] + 1) * self._usual <= self._limit]

    def keeps(self, model: str) -> bool:
        """Whether a picture is kept that was decoded for a model (its key): there will be room, then."""
        return self._of_model[model] > 0

    def _settle(self, number: int, shared: SharedPicture, decoded: Job | None = None) -> None:
        """Nobody need have the pixels where no job needs them but one that was `decoded` just now."""
        if shared.is_open:
            return
        if shared.holder and not any(job.state in _NEEDED for job in shared.jobs.values() if job is not decoded):
            self._done[shared.holder].append(number)
            self._free(shared)
        if not shared.jobs and not shared.holder:
            del self._pictures[number]

    def _free(self, shared: SharedPicture) -> None:
        self._used[shared.holder] -= shared.size
        self._promised[shared.holder] -= not shared.size
        self._of_model[shared.model] -= 1
        shared.holder, shared.size = b"", 0
