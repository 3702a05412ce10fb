"""The dispatcher under any order of events: jobs, reports, deaths, expiries, cancellations and its own restarts.

The rules that must hold at every step are those of `core_rig`; at the end of each run everybody has exactly one reply
and everything is free again. A run is a number, so a failing one is repeated by its number.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from parallel_infer.crops import Crop, PicturePart, Selection
from tests.dispatcher.core_rig import FakeWorker, Rig, plan

CROP = Crop(0.0, 0.0, 1.0, 1.0, 4, 4)
MODELS = ("auto", "fixed", "narrow", "slow")
# Each kind of run: how often what happens.
CALM = {"admit": 25, "finish": 60, "bad": 5, "die": 1, "cancel": 4, "wait": 15, "restart": 0, "arrive": 30, "hear": 30}
WILD = {"admit": 25, "finish": 40, "bad": 8, "die": 8, "cancel": 10, "wait": 15, "restart": 2, "arrive": 12, "hear": 12}
LATE = {"admit": 25, "finish": 30, "bad": 2, "die": 2, "cancel": 2, "wait": 50, "restart": 1, "arrive": 12, "hear": 12}
LONELY = {"admit": 6, "finish": 40, "bad": 4, "die": 6, "cancel": 4, "wait": 4, "restart": 1, "arrive": 20, "hear": 20}


class Run:
    """One run of a random schedule."""

    def __init__(self, number: int, weights: dict[str, int]) -> None:
        self.chance = random.Random(number)
        self.weights = weights
        self.rig = Rig(
            plan("auto", rows=8, outputs=3, queue_size=12, max_batch=4),
            plan("fixed", rows=6, outputs=2, queue_size=12, fixed=4, weight=3.0),
            plan("narrow", rows=2, outputs=1, queue_size=3, max_batch=2, delay=0.05),
            plan("slow", rows=24, outputs=4, queue_size=40, preferred=1),
            onward=self.chance.random() < 0.7,
            kept=self.chance.choice([0, 1, 4]),
        )
        self.pictures = itertools.count(1)
        self.roots: dict[int, int] = {}  # pictures of which something may still be cut out, by their first job
        for stage in ("decode", "postprocess"):
            for _ in range(self.chance.randint(1, 3)):
                self.rig.worker(stage)
        for model in MODELS:
            for _ in range(self.chance.randint(1, 2)):
                self.rig.worker("infer", model, {1: 0.004, 2: 0.005, 4: 0.008})

    def run(self, steps: int) -> None:
        events, weights = list(self.weights), list(self.weights.values())
        for _ in range(steps):
            getattr(self, self.chance.choices(events, weights)[0])()
            self.cut_out()
            self.rig.step()
            awaited = [worker for worker in self.rig.workers.values() if worker.name.encode() in self.rig.core.awaited]
            if awaited and self.chance.random() < 0.4:
                self.rig.announce(self.chance.choice(awaited))
        for worker in list(self.rig.workers.values()):
            if worker.name.encode() in self.rig.core.awaited:
                self.rig.announce(worker)
        while self.roots:
            self.rig.run_dry()
            self.cut_out()
        self.rig.run_dry()
        self.rig.check_drained()

    def cut_out(self) -> None:
        """What a gateway does once the first job of a chain is over: it asks about objects, and says that is all."""
        for root in [root for root in self.roots if root in self.rig.answered or root in self.rig.refused]:
            if not self.rig.settled:
                return
            picture = self.roots.pop(root)
            for _ in range(self.chance.choice([0, 1, 5]) if root in self.rig.answered else 0):
                self.rig.admit(self.chance.choice(MODELS), timeout=1000.0, part=PicturePart(picture, CROP))
            self.rig.core.ledger.pictures.all_cut(picture)

    def fan_or_chain(self) -> None:
        """The first jobs about one picture."""
        models = tuple(self.chance.sample(MODELS, self.chance.randint(1, 3)))
        cuts = (Selection(9),) if len(models) == 1 else ()
        picture, timeout = next(self.pictures), self.chance.choice([0.05, 0.5, 1000.0])
        part = PicturePart(picture, None, cuts, () if cuts else models)
        jobs = [self.rig.admit(model, timeout=timeout, part=part) for model in models]
        if cuts:
            self.roots[jobs[0]] = picture

    def admit(self) -> None:
        if not self.rig.settled:  # the gateway keeps what comes to itself
            return
        if self.chance.random() < 0.3:
            self.fan_or_chain()
            return
        model = self.chance.choices(MODELS, (5, 3, 2, 5))[0]
        for _ in range(1 if self.weights is LONELY else self.chance.randint(1, 6)):
            self.rig.admit(
                model,
                timeout=self.chance.choice([self.chance.uniform(0.001, 0.1), 0.5, 1000.0, 1000.0]),
                priority=self.chance.choice([0, 0, 0, 1, -1]),
                source=self.chance.choice(["", "", "", "a", "b"]),
            )

    def busy(self) -> FakeWorker | None:
        workers = [worker for worker in self.rig.workers.values() if worker.leases]
        return self.chance.choice(workers) if workers else None

    def finish(self) -> None:
        worker = self.busy()
        if worker is not None:
            slow = worker.model == "slow"  # whose rows are decoded in groups
            self.rig.finish(worker, 0.1 if slow else self.chance.choice([0.0001, 0.002, 0.02]))

    def bad(self) -> None:
        worker = self.busy()
        if worker is not None:
            jobs = self.rig.jobs_of(worker)[0]
            self.rig.finish(worker, fail=self.chance.sample(jobs, self.chance.randint(1, len(jobs))))

    def die(self) -> None:
        worker = self.chance.choice(list(self.rig.workers.values()))
        self.rig.replace(worker, lost=lambda: self.chance.random() < 0.5)

    def arrive(self) -> None:
        if self.rig.flights:
            self.rig.arrive(self.chance.choice(self.rig.flights))

    def hear(self) -> None:
        self.rig.hear()

    def cancel(self) -> None:
        if self.rig.admitted and self.rig.settled:
            self.rig.core.cancel(self.chance.choice(list(self.rig.admitted)[-25:]))

    def wait(self) -> None:
        self.rig.now += self.chance.choice([0.0003, 0.001, 0.004, 0.02, 0.1])

    def restart(self) -> None:
        self.rig.restart()


@settings(max_examples=200, deadline=None)
@given(number=st.integers(0, 2**32), weights=st.sampled_from([CALM, WILD, LATE, LONELY]))
def test_everybody_gets_one_reply_and_nothing_leaks(number, weights):
    schedule = Run(number, weights)
    schedule.run(120)
    schedule.rig.check_drained()


def test_the_schedules_reach_everything_worth_reaching():
    """The test above would pass if nothing ever happened."""
    seen: Counter[str] = Counter()
    for number in range(30):
        run = Run(number, WILD)
        run.run(120)
        seen.update(message.code for message in run.rig.refused.values())
        seen.update({"answered": len(run.rig.answered), "again": sum(n > 1 for n in run.rig.answered.values())})
        seen["restarted"] += run.rig.epoch > 1
    assert seen.keys() >= {
        *("answered", "again", "restarted", "BAD_INPUT", "DROPPED"),
        *("DEADLINE_EXCEEDED", "RESOURCE_UNAVAILABLE", "POISON"),
    }
