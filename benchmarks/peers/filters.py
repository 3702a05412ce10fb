"""How both sides resize: as each model asks, or all of them linearly. Our server is asked, the peers are told."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from parallel_infer.pipeline import load_pipeline

OWN, LINEAR = "own", "linear"


class Filter(NamedTuple):
    """What was chosen, and what that is for the model, and for the second one of a chain."""

    chosen: str  # OWN or LINEAR
    names: tuple[str, ...]  # of linear, bilinear, bicubic

    def __str__(self) -> str:
        return " > ".join(self.names)

    @property
    def is_linear(self) -> bool:
        """Whether nothing here is resized otherwise."""
        return set(self.names) == {LINEAR}


@cache
def preprocess_of(path: str, chosen: str) -> dict[str, Any]:
    """What our server makes of the file's pictures; raises ModelRejected."""
    asked = {"filter": LINEAR} if chosen == LINEAR else {}
    return load_pipeline().describe("model", Path(path), asked).preprocess


def filters(chosen: Sequence[str], *paths: str) -> list[Filter]:
    """Those chosen for the models at these paths, without one that is the same as another."""
    found: dict[tuple[str, ...], Filter] = {}
    for each in chosen:
        names = tuple(str(preprocess_of(path, each)["filter"]) for path in paths)
        found.setdefault(names, Filter(each, names))
    return list(found.values())


def table_of(chosen: str, models: Sequence[str]) -> str:
    """The configuration, as TOML, with which our server resizes these models so; empty: as it starts."""
    return "".join(f'[models.{name}]\nfilter = "{LINEAR}"\n' for name in models) if chosen == LINEAR else ""
