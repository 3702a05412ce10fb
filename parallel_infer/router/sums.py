"""What several servers say of themselves, as if they were one. Pure functions of what they said, by member."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import Any

_OF_MEMBERS = ("workers", "processes", "doors")  # maps whose keys are names that every server has
_AS_FIRST = ("bounds", "version", "slot_size", "name", "batch_target")  # no amounts
_LEAST = ("uptime", "age")
_STATES = ("ready", "degraded", "loading", "closing", "unavailable")  # the best that any of them has
_READY = "ready"


def models(served: Mapping[str, Mapping[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """The models of all, each as the first that has it describes it, and in `members` who has it.

    Where they are not the same file everywhere, a warning says so.
    """
    found: dict[str, dict[str, Any]] = {}
    for member, facts in served.items():
        for name, model in facts.items():
            if name not in found:
                found[name] = {**model, "members": [member], "warnings": list(model.get("warnings", ()))}
                continue
            found[name]["members"].append(member)
            if model.get("digest") != found[name].get("digest"):
                first = found[name]["members"][0]
                found[name]["warnings"].append(f"{member} serves another file under this name than {first}")
    for model in found.values():
        without = [member for member in served if member not in model["members"]]
        if without:
            model["warnings"].append(f"only some members serve it; not: {', '.join(without)}")
    return list(found.values())


def first_of_each(lists: Iterable[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Of several lists of models every name once."""
    found: dict[str, dict[str, Any]] = {}
    for facts in lists:
        for model in facts:
            found.setdefault(model["name"], model)
    return list(found.values())


def readiness(said: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Ready is who can answer: every model by one member at least."""
    models: dict[str, str] = {}
    states: dict[str, str] = {}
    for member, found in said.items():
        for name, outcome in found.get("models", {}).items():
            if models.get(name) != _READY:
                models[name] = _READY if outcome == _READY else f"{outcome} ({member})"
        for name, state in found.get("states", {}).items():
            states[name] = _best(states.get(name, state), state)
    ready = bool(models) and all(outcome == _READY for outcome in models.values())
    return {"ready": ready, "models": models, "states": states}


def status(said: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """One status: numbers added up, workers and processes under their member's name."""
    whole: dict[str, Any] = {}
    for member, found in said.items():
        named = {key: {f"{member}/{name}": each for name, each in found.get(key, {}).items()} for key in _OF_MEMBERS}
        rest = {key: value for key, value in found.items() if key not in (*_OF_MEMBERS, "served", "router", "members")}
        whole = _sum(whole, {**rest, **named})
    return whole


def _sum(first: Any, second: Any, key: str = "") -> Any:
    if key == "state":
        return _best(first, second)
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return {
            name: _sum(first[name], second[name], str(name)) if name in first and name in second else value
            for name, value in {**first, **second}.items()
        }
    if key in _AS_FIRST or first is None or isinstance(first, (bool, str)):
        return second if first is None else first
    if isinstance(first, (int, float)) and isinstance(second, (int, float)):
        return min(first, second) if key in _LEAST else first + second
    if isinstance(first, list) and isinstance(second, list):
        return _sum_lists(first, second)
    return first


def _sum_lists(first: list[Any], second: list[Any]) -> list[Any]:
    """Place by place; a list of texts as the first says it."""
    if any(isinstance(value, str) for value in (*first, *second)):
        return first
    return [
        _sum(one, other) if one is not None and other is not None else (other if one is None else one)
        for one, other in zip_longest(first, second)
    ]


def _best(first: str, second: str) -> str:
    order = {state: number for number, state in enumerate(_STATES)}
    return min(first, second, key=lambda state: order.get(state, len(order)))
