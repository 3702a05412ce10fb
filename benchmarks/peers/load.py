"""The load, in a process of its own: reads an order as JSON on stdin, writes the figures as JSON on stdout.

The same loop drives every server, so that only the connection differs. It counts its own processor time, because on a
small machine the client takes from the server what it costs.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import sys
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.peers.connections import Connection, Http, Ours, OursOverHttp, TritonHttp, Verdict
from benchmarks.peers.pictures import photographs, workload

_PATIENCE = 30.0  # seconds to wait for what is still on its way


@dataclass
class Tally:
    """What became of the requests that count."""

    verdicts: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)  # latencies of the answered ones
    refusals: list[float] = field(default_factory=list)  # those of the refused ones

    def add(self, verdict: Verdict, latency: float) -> None:
        self.verdicts[verdict.value] += 1
        if verdict == Verdict.ANSWERED:
            self.seconds.append(latency)
        elif verdict == Verdict.REFUSED:
            self.refusals.append(latency)

    def figures(self) -> dict[str, Any]:
        others: dict[str, Any] = {verdict.value: self.verdicts[verdict.value] for verdict in Verdict}
        others |= {"p50_ms": quantile_ms(self.seconds, 0.5), "p99_ms": quantile_ms(self.seconds, 0.99)}
        return others | {"refused_p99_ms": quantile_ms(self.refusals, 0.99)}


def quantile_ms(seconds: Sequence[float], share: float) -> float | None:
    """Of a list of seconds, in milliseconds; None of none."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000 if ordered else None


async def closed_loop(server: Connection, pictures: int, in_flight: int, warm: float, seconds: float) -> dict[str, Any]:
    """Always `in_flight` requests under way. Counted is what is answered within `seconds` after `warm`."""
    tally = Tally()
    answered: list[float] = []
    start = time.perf_counter() + warm
    end = start + seconds

    async def one_client(number: int) -> None:
        while (sent := time.perf_counter()) < end:
            reply = await server.ask(number % pictures)
            now = time.perf_counter()
            if start <= now < end:
                tally.add(reply.verdict, now - sent)
            if reply.verdict == Verdict.ANSWERED:
                answered.append(now)
            number += in_flight
            if reply.verdict != Verdict.ANSWERED:
                await asyncio.sleep(0.01)  # a server that refuses at once is not to be asked without pause

    before = time.process_time()
    await asyncio.gather(*(one_client(number) for number in range(in_flight)))
    spent = time.process_time() - before
    share = seconds / (time.perf_counter() - start + warm)
    cost = spent * share / max(1, tally.verdicts[Verdict.ANSWERED.value]) * 1000
    return {"per_second": rate_of(answered, start, end), "client_ms": cost, **tally.figures()}


def rate_of(moments: Sequence[float], start: float, end: float) -> float:
    """Answers per second from `start` to `end`, of which these are the moments.

    Reckoned from the last answer before to the last one within: a server that answers in batches would else gain or
    lose a whole batch at either end.
    """
    ordered = sorted(moment for moment in moments if moment < end)
    inside = len(ordered) - bisect_left(ordered, start)
    begin = max(0, len(ordered) - inside - 1)  # the first of all, where none was before
    counted = len(ordered) - 1 - begin
    if counted < 1 or ordered[-1] <= ordered[begin]:
        return inside / (end - start)
    return counted / (ordered[-1] - ordered[begin])


async def open_loop(server: Connection, pictures: int, rate: float, seconds: float, deadline: float) -> dict[str, Any]:
    """Requests at random moments, `rate` a second on average, whatever the server does. Good: in time."""
    tally = Tally()
    gaps = random.Random(0)
    tasks: set[asyncio.Task[None]] = set()

    async def one(picture: int, due: float) -> None:
        reply = await server.ask(picture)
        tally.add(reply.verdict, time.perf_counter() - due)

    start = due = time.perf_counter()
    sent = 0
    while due < start + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.create_task(one(sent % pictures, due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        sent += 1
        due += gaps.expovariate(rate)
    behind = time.perf_counter() - (start + seconds)
    _, lost = await asyncio.wait(tasks, timeout=_PATIENCE) if tasks else (set(), set())
    for task in lost:
        task.cancel()
    good = sum(latency <= deadline for latency in tally.seconds)
    figures = {"offered_per_second": sent / seconds, "good_per_second": good / seconds, "unanswered": len(lost)}
    return {**figures, "client_behind_s": max(0.0, behind), **tally.figures()}


async def answers(server: Connection, count: int) -> list[dict[str, Any] | None]:
    """The answers for the photographs; None where there is none."""
    found = []
    for number in range(count):
        answer = (await server.ask(number)).answer
        found.append(answer and _plain(answer))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value


def connect(order: dict[str, Any], pictures: Sequence[bytes]) -> Connection:
    if order["kind"] == "ours":
        return Ours(order["address"], order["model"], pictures, order["timeout"])
    kinds = {"triton": TritonHttp, "ours over http": OursOverHttp}
    return kinds.get(order["kind"], Http)(order["port"], order["path"], pictures)


async def fulfil(order: dict[str, Any]) -> Any:
    """Do what the order says: `points` of load, or `photographs` to be answered once."""
    pictures = photographs() if order["what"] == "photographs" else workload()
    server = connect(order, pictures)
    try:
        if order["what"] == "photographs":
            return await answers(server, len(pictures))
        found = []
        for point in order["points"]:
            loop = open_loop if "rate" in point else closed_loop
            found.append({**point, **await loop(server, len(pictures), **point)})
        return found
    finally:
        await server.close()


def main() -> None:
    """Raise the number of open files, then load."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(json.dumps(asyncio.run(fulfil(json.load(sys.stdin)))))


if __name__ == "__main__":
    main()
