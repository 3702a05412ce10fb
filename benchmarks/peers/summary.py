"""Figures of a comparison brought together: medians over rounds, ratios of neighbours, one table."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.peers.campaign import Point, Record

_FAULTS = ("refused", "expired", "failed")


def summary(record: Record) -> dict[str, Any]:
    """One pair for JSON: medians per point and all that they were made from."""
    places = range(len(record.rounds[0]["ours"])) if record.rounds else ()
    points = [_point([(turn["ours"][place], turn["peer"][place]) for turn in record.rounds]) for place in places]
    return {
        "model": record.pair.model,
        "peer": record.pair.peer.name,
        "peer_title": f"{record.pair.peer.title}, {record.pair.provider.label}",
        "provider": record.pair.provider._asdict(),
        "setting": str(record.setting) if record.setting else None,
        "our_options": list(record.our_options),
        "trials": record.trials,
        "disagreements": record.disagreements,
        "failure": record.failure or None,
        "points": points,
        "rounds": record.rounds,
    }


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
    head = f"{'model':<11}{'peer':<24}{'load':<14}{'ours/s':>8}{'peer/s':>8}{'ratio':>7}  {'range':<12}"
    head += f"{'ours p50, p99 ms':>18}{'peer p50, p99 ms':>18}{'faults ours, peer':>19}"
    table = [head, "-" * len(head)]
    for pair in summaries:
        table += [_line(pair, point) for point in pair["points"]]
        if pair["failure"]:
            table.append(f"{pair['model']:<11}{pair['peer_title']:<24}FAILED: {pair['failure'].splitlines()[0]}")
    return table


def _line(pair: dict[str, Any], point: dict[str, Any]) -> str:
    ours, peer = point["ours"], point["peer"]
    overload = point["kind"] == "overload"
    load = "2x, in time" if overload else f"{point['in_flight']} in flight"
    key = "good_per_second" if overload else "per_second"
    text = f"{pair['model']:<11}{pair['peer_title']:<24}{load:<14}{ours[key]:>8.1f}{peer[key]:>8.1f}"
    if "ratio" in point:
        spread = f"{point['lowest']:.2f}-{point['highest']:.2f}"
        text += f"{point['ratio']:>7.2f}  {spread:<12}"
    else:
        text += f"{'-':>7}  {'':<12}"
    faults = [sum(point[f"{side}_{fault}"] for fault in _FAULTS) for side in ("ours", "peer")]
    return text + f"{_latency(ours):>18}{_latency(peer):>18}{f'{faults[0]}, {faults[1]}':>19}"


def _latency(side: dict[str, Any]) -> str:
    return ", ".join("-" if side[name] is None else f"{side[name]:.0f}" for name in ("p50_ms", "p99_ms"))


def notes(summaries: Sequence[dict[str, Any]]) -> list[str]:
    """What the table does not say: chosen settings, and what the client cost."""
    found = [
        f"{pair['model']}, {pair['peer_title']}: {pair['provider']['name']} {pair['provider']['precision']}, "
        f"{'spinning, ' if pair['provider']['spins'] else ''}{pair['setting']}; "
        f"ours {' '.join(pair['our_options']) or 'as it starts'}"
        for pair in summaries
        if pair["setting"]
    ]
    for side, title in (("ours", "of our package"), ("peer", "over HTTP")):
        costs = [
            point[side]["client_ms"] for pair in summaries for point in pair["points"] if point["kind"] == "closed"
        ]
        if costs:
            found.append(f"the client {title} took {statistics.median(costs):.2f} ms of processor time per picture")
    return found
