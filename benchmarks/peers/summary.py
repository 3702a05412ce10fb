"""Figures of a comparison brought together: medians over rounds, ratios of neighbours, tables, the lowest of all."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from benchmarks.peers.filters import LINEAR, OWN
from benchmarks.peers.pairs import AS_STARTED, TRIAL_IN_FLIGHT, Point, Record

_FAULTS = ("refused", "expired", "failed")


def summary(record: Record) -> dict[str, Any]:
    """One pair for JSON: medians per point, by the way that ours was asked, and all that they were made from."""
    return {
        "model": record.pair.model,
        "peer": record.pair.peer.name,
        "peer_title": f"{record.pair.peer.title}, {record.pair.provider.label}",
        "provider": record.pair.provider._asdict(),
        "filter": record.pair.filter._asdict() | {"shown": str(record.pair.filter)},
        "setting": str(record.setting) if record.setting else None,
        "our_options": list(record.our_options),
        "trials": record.trials,
        "failure": record.failure or None,
        "points": list(_points(record.rounds)),
        "rounds": record.rounds,
    }


def _points(rounds: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for way in sorted(rounds[0]["ours"], reverse=True) if rounds else ():
        for place in range(len(rounds[0]["peer"])):
            yield {"over": way} | _point([(turn["ours"][way][place], turn["peer"][place]) for turn in rounds])


def _point(turns: Sequence[tuple[Point, Point]]) -> dict[str, Any]:
    """Medians of ours and theirs. The ratio is made within each round, where both saw the same machine."""
    first = turns[0][0]
    key = "good_per_second" if "rate" in first else "per_second"
    names = [name for name, value in first.items() if value is None or isinstance(value, int | float)]
    sides = {
        side: {name: _median(turn[place].get(name) for turn in turns) for name in names}
        for place, side in enumerate(("ours", "peer"))
    }
    ratios = sorted(one[key] / other[key] for one, other in turns if other[key])
    spread = {"ratio": statistics.median(ratios), "lowest": ratios[0], "highest": ratios[-1]} if ratios else {}
    faults = {
        f"{side}_{fault}": sum(turn[place][fault] for turn in turns)
        for place, side in enumerate(("ours", "peer"))
        for fault in _FAULTS
    }
    kind = "overload" if "rate" in first else "closed"
    return {"kind": kind, "in_flight": first.get("in_flight"), **sides, **spread, **faults}


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def lines(summaries: Sequence[dict[str, Any]]) -> list[str]:
    """The table for people."""
    head = f"{'model':<11}{'filter':<17}{'peer':<24}{'load':<14}{'over':<6}{'ours/s':>8}{'peer/s':>8}{'ratio':>7}  "
    head += f"{'range':<12}{'ours p50, p99 ms':>18}{'peer p50, p99 ms':>18}{'faults ours, peer':>19}"
    head += f"{'refused p99 ms ours, peer':>27}"
    table = [head, "-" * len(head)]
    for pair in summaries:
        table += [_line(pair, point) for point in pair["points"]]
        if pair["failure"]:
            table.append(f"{_what(pair)}FAILED: {pair['failure'].splitlines()[0]}")
    return table


def _line(pair: dict[str, Any], point: dict[str, Any]) -> str:
    ours, peer = point["ours"], point["peer"]
    overload = point["kind"] == "overload"
    load = "2x, in time" if overload else f"{point['in_flight']} in flight"
    key = "good_per_second" if overload else "per_second"
    text = f"{_what(pair)}{load:<14}{point['over']:<6}{ours[key]:>8.1f}{peer[key]:>8.1f}"
    if "ratio" in point:
        spread = f"{point['lowest']:.2f}-{point['highest']:.2f}"
        text += f"{point['ratio']:>7.2f}  {spread:<12}"
    else:
        text += f"{'-':>7}  {'':<12}"
    faults = [sum(point[f"{side}_{fault}"] for fault in _FAULTS) for side in ("ours", "peer")]
    text += f"{_ms(ours['p50_ms'], ours['p99_ms']):>18}{_ms(peer['p50_ms'], peer['p99_ms']):>18}"
    return text + f"{f'{faults[0]}, {faults[1]}':>19}{_ms(ours['refused_p99_ms'], peer['refused_p99_ms']):>27}"


def _what(pair: dict[str, Any]) -> str:
    return f"{pair['model']:<11}{pair['filter']['shown']:<17}{pair['peer_title']:<24}"


def _ms(*values: float | None) -> str:
    return ", ".join("-" if value is None else f"{value:.0f}" for value in values)


def notes(summaries: Sequence[dict[str, Any]]) -> list[str]:
    """What the table does not say: chosen settings, and what the client cost."""
    found = [
        f"{pair['model']}, {pair['filter']['shown']}, {pair['peer_title']}: "
        f"{pair['provider']['name']} {pair['provider']['precision']}, "
        f"{'spinning, ' if pair['provider']['spins'] else ''}{pair['setting']}; "
        f"ours {' '.join(pair['our_options']) or 'as it starts'}{_own_trial(pair)}"
        for pair in summaries
        if pair["setting"]
    ]
    closed = [point for pair in summaries for point in pair["points"] if point["kind"] == "closed"]
    costs_of = {
        "of our package": [point["ours"]["client_ms"] for point in closed if point["over"] == "wire"],
        "over HTTP": [point["peer"]["client_ms"] for point in closed],
    }
    for title, costs in costs_of.items():
        if costs:
            found.append(f"the client {title} took {statistics.median(costs):.2f} ms of processor time per picture")
    return found


def _own_trial(pair: dict[str, Any]) -> str:
    """What our server found by itself, where anything was measured."""
    points = [point for turn in pair["rounds"][:1] for points in turn["ours"].values() for point in points]
    return "".join(f", {point['own_trial']}" for point in points[:1] if point.get("own_trial"))


def extents(summaries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the points of a closed loop, by filter, provider and the way that ours is asked: how many there are and how
    many are below 1.0, the lowest with its place, and the median. "all": of the filter, or of the filter and provider.

    A model that asks for a linear filter itself is among both filters' points.
    """
    points = [(pair, point) for pair in summaries for point in pair["points"] if "ratio" in point]
    points = [(pair, point) for pair, point in points if point["kind"] == "closed"]
    found = []
    for chosen in dict.fromkeys(pair["filter"]["chosen"] for pair, _ in points):
        of_filter = [each for each in points if _has_filter(each[0], chosen)]
        labels = dict.fromkeys(pair["provider"]["label"] for pair, _ in of_filter)
        ways = dict.fromkeys(point["over"] for _, point in of_filter)
        for label in (*labels, *(["all"] if len(labels) > 1 else [])):
            of_label = [each for each in of_filter if label in (each[0]["provider"]["label"], "all")]
            for way in (*ways, *(["all"] if len(ways) > 1 else [])):
                concerned = [each for each in of_label if way in (each[1]["over"], "all")]
                found.append({"filter": chosen, "provider": label, "over": way} | _extent(concerned))
    return found


def verdict(summaries: Sequence[dict[str, Any]]) -> list[str]:
    """The same for people."""
    return [
        f"filter {each['filter']}, provider {each['provider']}, over {each['over']}: lowest {each['lowest']:.2f} "
        f"({each['where']}), {each['below']} of {each['points']} below 1.0, median {each['median']:.2f}"
        for each in extents(summaries)
    ]


def _has_filter(pair: dict[str, Any], chosen: str) -> bool:
    """Whether its points count for this choice."""
    return bool(pair["filter"]["chosen"] == chosen or (chosen == LINEAR and set(pair["filter"]["names"]) == {LINEAR}))


def _extent(points: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    pair, lowest = min(points, key=lambda each: float(each[1]["ratio"]))
    what = f"{pair['model']}, {pair['filter']['shown']}, {pair['peer_title']}"
    return {
        "points": len(points),
        "below": sum(point["ratio"] < 1.0 for _, point in points),
        "lowest": lowest["ratio"],
        "where": f"{what}, {lowest['in_flight']} in flight, over {lowest['over']}",
        "median": statistics.median(point["ratio"] for _, point in points),
    }


def in_eight_bits(summaries: Sequence[dict[str, Any]], models: Sequence[str]) -> list[str]:
    """Our copies in 8 bits against the best peer of each round as its users start it."""
    started = [pair for pair in summaries if AS_STARTED in (pair["provider"]["label"], _started_as_ours(pair))]
    found = []
    for model, chosen in itertools.product(models, (OWN, LINEAR)):
        concerned = [pair for pair in started if (pair["model"], pair["filter"]["chosen"]) == (model, chosen)]
        if not concerned and chosen == LINEAR:
            continue
        rounds = list(zip(*(pair["rounds"] for pair in concerned), strict=False))
        title = f"{model} in 8 bits, filter {chosen}"
        rounds = [turns for turns in rounds if turns[0]["eight bits"]]
        for way in rounds[0][0]["eight bits"] if rounds else ():
            ours = [turns[0]["eight bits"][way][0]["per_second"] for turns in rounds]
            best = [max(_at_trial_load(turn["peer"]) for turn in turns) for turns in rounds]
            ratios = [one / other for one, other in zip(ours, best, strict=True)]
            figures = f"{statistics.median(ours):.1f}/s, best peer as it starts {statistics.median(best):.1f}/s"
            times = f"{statistics.median(ratios):.2f} times ({min(ratios):.2f}-{max(ratios):.2f})"
            found.append(f"{title}, over {way}, {TRIAL_IN_FLIGHT} in flight: {figures}, {times}")
        if not rounds:
            found.append(f"{title}: not measured beside a peer as it starts")
    return found


def _started_as_ours(pair: dict[str, Any]) -> str:
    """The label of a peer as it starts, where that is also how ours runs the model."""
    return AS_STARTED if pair["provider"]["name"] == "cpu" and pair["provider"]["precision"] == "fp32" else ""


def _at_trial_load(points: Sequence[Point]) -> float:
    return next(float(point["per_second"]) for point in points if point.get("in_flight") == TRIAL_IN_FLIGHT)
