"""What can be tuned, and which values are worth a try. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from parallel_infer.config.fields import toml_key, toml_value
from parallel_infer.execution_providers import ON_GPU

_MODEL_KEYS = ("provider", "precision", "instances", "threads", "max_batch_size")  # the rest is the server's
_MOST_INSTANCES = 4  # of a model on a GPU


@dataclass(frozen=True, slots=True)
class Settings:
    """One point of the search. The names are those of the configuration."""

    provider: str
    precision: str
    instances: int
    threads: int  # of ONNX Runtime, per instance
    max_batch_size: int
    decode_workers: int

    def options(self) -> list[str]:
        """As options of `serve`."""
        values = self.values().items()
        return [word for name, value in values for word in ("--" + name.replace("_", "-"), str(value))]

    def values(self) -> dict[str, Any]:
        """By name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def differences(self, other: Settings) -> dict[str, Any]:
        """What is not as in `other`."""
        theirs = other.values()
        return {name: value for name, value in self.values().items() if value != theirs[name]}


Axis = Callable[[Settings], list[Settings]]
"""From the best settings so far to others that differ in one respect."""


@dataclass(frozen=True, slots=True)
class Space:
    """What a machine and a model allow."""

    cores: int
    choices: Sequence[tuple[str, str]]  # provider and precision, those that can be had
    fixed_batch: bool

    def axes(self) -> list[Axis]:
        """One after the other, the one that matters most first."""
        batches: list[Axis] = [] if self.fixed_batch else [self.batches]
        return [self.providers, self.instances, *batches, self.decoders]

    def providers(self, best: Settings) -> list[Settings]:
        return [replace(best, provider=provider, precision=precision) for provider, precision in self.choices]

    def instances(self, best: Settings) -> list[Settings]:
        """More instances of fewer threads, and on a processor also one core left to the other processes."""
        if best.provider in ON_GPU:
            return [replace(best, instances=count) for count in _doubling(_MOST_INSTANCES)]
        splits = {(count, max(1, self.cores // count)) for count in _doubling(self.cores)}
        splits |= {(self.cores, 1), (1, max(1, self.cores - 1)), (2, self.cores)}
        return [replace(best, instances=count, threads=threads) for count, threads in sorted(splits)]

    def batches(self, best: Settings) -> list[Settings]:
        sizes = [1, 2, 4, 8, 16, 32] if best.provider not in ON_GPU else [1, 4, 8, 16, 32, 64]
        near = [size for size in sizes if best.max_batch_size / 8 <= size <= best.max_batch_size * 4]
        return [replace(best, max_batch_size=size) for size in near]

    def decoders(self, best: Settings) -> list[Settings]:
        counts = sorted({max(1, best.decode_workers // 2), best.decode_workers * 2, max(1, self.cores - 1), self.cores})
        most = max(self.cores, best.decode_workers)
        return [replace(best, decode_workers=count) for count in counts if count <= most]


def to_toml(name: str, path: str, changes: dict[str, Any], comments: Sequence[str]) -> str:
    """A configuration of one model for `serve --config`, with only what differs from the default."""
    lines = [f"# {comment}" for comment in comments]
    lines += [f"{key} = {toml_value(value)}" for key, value in changes.items() if key not in _MODEL_KEYS]
    lines += ["", f"[models.{toml_key(name)}]", f"path = {toml_value(path)}"]
    lines += [f"{key} = {toml_value(value)}" for key, value in changes.items() if key in _MODEL_KEYS]
    return "\n".join(lines) + "\n"


def _doubling(last: int) -> Iterator[int]:
    number = 1
    while number <= last:
        yield number
        number *= 2
