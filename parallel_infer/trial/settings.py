"""What a trial may choose, and which choices are worth measuring on so many cores. Pure.

What the user gave is never changed: it narrows what is tried.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

_MOST = 8  # settings that are measured besides the default
_CROWDED = 4  # times the cores that all threads of a setting may be at most
_INSTANCES, _THREADS = 64, 256  # the most of each that the settings allow
_BATCHES = (2, 4)  # times the largest batch of the default


class Setting(Struct, frozen=True):
    """How one model runs. The bounds are those of the settings of the same names."""

    instances: Annotated[int, Meta(ge=1, le=64)]
    threads: Annotated[int, Meta(ge=1, le=256)]  # of each instance
    max_batch: Annotated[int, Meta(ge=1, le=4096)]

    def __str__(self) -> str:
        return f"{self.instances} x {self.threads}, batch {self.max_batch}"


Mix = tuple[Setting, ...]
"""A setting for each of the models that are served, in their order."""


class Choice(NamedTuple):
    """What a trial may decide for one model."""

    default: Setting
    instances: bool  # whether the user left them open
    threads: bool
    max_batch: bool
    gpus: int  # that it runs on; 0: on the processor
    most_batch: int = 4096  # that the model computes rightly

    def of(self, instances: int, threads: int) -> Setting:
        """The default but for these numbers, as far as they are open."""
        return Setting(
            min(instances, _INSTANCES) if self.instances else self.default.instances,
            min(threads, _THREADS) if self.threads and not self.gpus else self.default.threads,
            self.default.max_batch,
        )


def default_mix(choices: Sequence[Choice]) -> Mix:
    """What is served without a trial."""
    return tuple(choice.default for choice in choices)


def splits(choices: Sequence[Choice], cores: int) -> list[Mix]:
    """Other ways to share out the cores than the default, the nearest to it first; and more instances on GPUs."""
    default = default_mix(choices)
    on_cores = sum(not choice.gpus for choice in choices)
    found = {
        tuple(choice.default if choice.gpus else choice.of(*pair) for choice in choices)
        for pair in _pairs(cores, max(1, on_cores))
    }
    found.add(
        tuple(
            choice.of(2 * choice.gpus, choice.default.threads) if choice.gpus else choice.default for choice in choices
        )
    )
    found.discard(default)
    fitting = [mix for mix in found if _threads(mix, choices) <= max(_CROWDED * cores, _threads(default, choices))]
    return sorted(fitting, key=lambda mix: (_distance(mix, default), mix_key(mix)))[:_MOST]


def larger_batches(mix: Mix, choices: Sequence[Choice], targets: Sequence[int]) -> list[Mix]:
    """The same split with larger batches, for models that gain up to the largest there is (their target)."""
    growing = [
        choice.max_batch and target == setting.max_batch
        for setting, choice, target in zip(mix, choices, targets, strict=True)
    ]
    found = [
        tuple(
            Setting(s.instances, s.threads, min(s.max_batch * times, choice.most_batch) if grows else s.max_batch)
            for s, choice, grows in zip(mix, choices, growing, strict=True)
        )
        for times in _BATCHES
    ]
    return [other for other in dict.fromkeys(found) if other != mix]


def fitting(default: Mix, others: Sequence[Mix], sizes: Sequence[int], room: int) -> list[Mix]:
    """Those of `others` whose sessions fit into `room` bytes beside those of the default and of the ones before.

    `sizes` are the bytes of one session, by model. All settings that are measured stay loaded.
    """
    found: list[Mix] = []
    loaded = set(sessions(default))
    for mix in others:
        more = loaded | set(sessions(mix))
        if sum(sizes[model] for (model, _), _ in more) <= room:
            found.append(mix)
            loaded = more
    return found


def sessions(mix: Mix) -> Iterator[tuple[tuple[int, int], Setting]]:
    """Model and instance, and the session that is needed there: a setting of one instance."""
    for model, setting in enumerate(mix):
        for instance in range(setting.instances):
            yield (model, instance), Setting(1, setting.threads, setting.max_batch)


def mix_key(mix: Mix) -> tuple[tuple[int, int, int], ...]:
    """Something to sort by."""
    return tuple((setting.instances, setting.threads, setting.max_batch) for setting in mix)


def mix_text(mix: Mix) -> str:
    """For people: "2 x 1, batch 8", several models with "and" between them."""
    return " and ".join(str(setting) for setting in mix)


def _pairs(cores: int, models: int) -> Iterator[tuple[int, int]]:
    """Instances and threads: all cores for each model, or its share of them, split by powers of two."""
    for share in {cores, math.ceil(cores / models)}:
        count = 1
        while count <= share:
            yield count, share // count
            count *= 2
        yield share, 1
    yield 1, max(1, cores - 1)  # one left to the other processes
    yield 2, cores  # two at once, each with as many threads as there are cores


def _threads(mix: Mix, choices: Sequence[Choice]) -> int:
    """Threads that compute on the processor."""
    return sum(s.instances * s.threads for s, choice in zip(mix, choices, strict=True) if not choice.gpus)


def _distance(mix: Mix, default: Mix) -> float:
    """How many times numbers were doubled or halved."""
    return sum(
        abs(math.log2(mine.instances / theirs.instances)) + abs(math.log2(mine.threads / theirs.threads))
        for mine, theirs in zip(mix, default, strict=True)
    )
