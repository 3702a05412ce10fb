"""Which family a model belongs to: the strongest claim whose outputs fit.

The user's word goes first, then the names of inputs and outputs, then the metadata, and only then the shapes: shapes
alone mis-decode, so a decision by shape comes with a warning.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import Struct

from parallel_infer.errors import ModelRejected
from stages.families import FAMILIES, Family
from stages.families.facts import Facts
from stages.families.family import Claim, Fit, Recipe, Strength
from stages.recognise.overrides import Overrides

_TASKS_FIRST = (
    "segment",
    "classify",
    "detect",
    "obb",
    "keypoints",
    "semantic",
    "map",
    "embedding",
    "tensor",
)  # those with more outputs


class Verdict(Struct, frozen=True):
    """What the model is."""

    family: str
    task: str
    fit: Fit
    evidence: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def recipe(self) -> Recipe:
        """How its pictures are prepared."""
        return self.fit.recipe or FAMILIES[self.family].recipe


def decide(facts: Facts, overrides: Overrides) -> Verdict:
    """The first claim that fits, else raw tensors.

    Raises ModelRejected where the user named a family or task and the outputs do not fit it.
    """
    claims = list(_claims(facts, overrides))
    known = msgspec.structs.replace(facts, insisted=overrides.family is not None)
    misfits = []
    for family, claim in claims:
        result = family.fits(known, claim.task)
        if isinstance(result, Fit):
            return _verdict(family, claim, result, facts.nc)
        misfits.append(f"not {family.name} ({claim.task}): {result.why}")
    if overrides.family is not None or overrides.task is not None:
        wanted = f"family {overrides.family}" if overrides.family is not None else f"task {overrides.task}"
        reasons = "; ".join(dict.fromkeys(misfits)) or f"no family for it has such outputs: {dict(facts.outputs)}"
        raise ModelRejected(f"the outputs do not fit the {wanted} that was asked for: {reasons}")
    return _as_tensors(tuple(dict.fromkeys(misfits)), facts)


def _claims(facts: Facts, overrides: Overrides) -> Iterator[tuple[Family, Claim]]:
    """Who claims the model, strongest first."""
    if overrides.family is not None:
        family = FAMILIES[overrides.family]
        yield from ((family, claim) for claim in _of_named(family, facts, overrides))
        return
    claims = [(family, claim) for family in FAMILIES.values() for claim in family.claims(facts)]
    possible = [
        (family, claim)
        for family, claim in claims
        if claim.task in family.tasks and overrides.task in (None, claim.task)
    ]
    yield from sorted(possible, key=lambda pair: pair[1].strength)


def _of_named(family: Family, facts: Facts, overrides: Overrides) -> Iterator[Claim]:
    """The user named the family: its tasks, first the one that is named too, then those with more outputs."""
    evidence = (f"the user names the family: {family.name}",)
    named = [task for task in (overrides.task or facts.task,) if task in family.tasks]
    if overrides.task is None:
        named += [task for task in (*_TASKS_FIRST, *family.tasks) if task in family.tasks]
    yield from (Claim(Strength.NAMES, str(task), evidence) for task in dict.fromkeys(named))


def _verdict(family: Family, claim: Claim, result: Fit, named: int | None) -> Verdict:
    warnings = (*claim.warnings, *result.warnings)
    if result.unused:
        warnings += (f"nothing is read of the outputs {', '.join(result.unused)}",)
    if named is not None and result.nc and named != result.nc:
        warnings += (f"there are {named} class names for {result.nc} classes; set names to correct them",)
    return Verdict(family.name, claim.task, result, (*claim.evidence, result.because), warnings)


def _as_tensors(misfits: tuple[str, ...], facts: Facts) -> Verdict:
    known = facts.task is None or any(facts.task in family.tasks for family in FAMILIES.values())
    found = f"the metadata names the task {facts.task!r}, which has no decoder" if not known else "unknown outputs"
    warning = f"{found}: answers are the raw output tensors; set family and task to have them decoded"
    evidence = misfits or ("no rule recognises these inputs and outputs",)
    return Verdict("tensor", "tensor", Fit(0, ""), evidence, (warning,))
