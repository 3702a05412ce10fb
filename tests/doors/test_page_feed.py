"""What the page is told, without a browser: the figures, who is told them, and what they cost while nobody looks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from parallel_infer import protocol
from parallel_infer.doors.http.page.feed import Feed
from parallel_infer.doors.http.page.previews import Seen, preview
from parallel_infer.doors.http.page.snapshot import Snapshots
from parallel_infer.errors import ResourceUnavailable, ServerUnavailable
from parallel_infer.observe.histogram import JobTimes
from tests.doors.page_server import VIEWERS, Served

pytest.importorskip("aiohttp", reason="the HTTP door needs the extra http")


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> None:
    """Instead of that of all tests: the server is shared, and looked at when it has ended."""


# --- figures ----------------------------------------------------------------------------------------------------------


def status(answered: int = 0, uptime: float = 10.0, seconds: float = 0.02, **changes: Any) -> dict[str, Any]:
    """A status as the gateway gives it: one model that answered so many jobs, each of `seconds`."""
    times = JobTimes()
    for _ in range(answered):
        times.add((0.001, 0.002, 0.003, seconds / 2, 0.001, 0.001, seconds))
    slots = {"slots": 8, "free": 6}
    model = {
        "name": "street",
        "version": 1,
        "state": "ready",
        "unavailable": "",
        "instances": 1,
        "memory": 4096,
        "queued": 2,
        "decoding": 0,
        "ready": 1,
        "jobs": 3,
        "rows": slots,
        "outputs": slots,
        "batches": answered // 2,
        "batched_rows": answered,
        "batch_sizes": {"2": answered // 2},
    }
    workers = {"decode-0": ("decode", ""), "infer-street-0": ("infer", "street"), "postprocess-0": ("postprocess", "")}
    found = {
        "draining": False,
        "models": {"street": model},
        "workers": {
            name: {"stage": stage, "model": of, "leases": 0, "done": answered, "busy_seconds": answered * seconds}
            for name, (stage, of) in workers.items()
        },
        "processes": {name: {"state": "up", "restarts": 0} for name in (*workers, "gateway", "dispatcher", "http")},
        "dispatcher": {"cpu_seconds": 0.1},
        "doors": {
            "http": {
                "addresses": ["http://127.0.0.1:8000"],
                "state": "up",
                "requests": {"200": 3, "404": 1},
                "refused": {"UNKNOWN_MODEL": 1},
                "in_flight": 2,
            }
        },
        "gateway": {
            "uptime": uptime,
            "pending": 3,
            "clients": 1,
            "lent_bytes": 0,
            "unread": 0,
            "cut": 0,
            "cpu_seconds": 0.1,
            "ingress": [{"slot_size": 16384, "slots": 4, "free": 4, "leaked": 0}],
            "models": {"street": {"ends": {"answered": answered, "DROPPED": 2, "BAD_INPUT": 1}}},
            "sources": {"gate": {"answered": answered, "dropped": 2, "failed": 0, "age": 0.5, "client": None}},
        },
        "times": {"models": {"street": times.status()}},
    }
    return found | changes


def test_figures_are_those_of_the_last_seconds() -> None:
    snapshots = Snapshots()
    first = snapshots.add(status(10), 100.0)
    assert (first.totals.answered, first.totals.fps) == (10, 0.0)
    assert first.totals.p50 == pytest.approx(20, rel=0.2)  # of all jobs: there is no second to look at yet
    then = snapshots.add(status(30, 11.0), 101.0)
    assert then.totals.fps == pytest.approx(20)
    assert (then.totals.failed, then.totals.dropped, then.totals.queue) == (1, 2, 3)
    (model,) = then.models
    assert (model.batch, model.fps) == (2.0, pytest.approx(20))
    assert model.times["infer"] == pytest.approx(10)
    assert [(door.requests, door.in_flight) for door in then.doors] == [(4, 2)]
    assert (then.sources[0].name, then.sources[0].fps, then.sources[0].dropped) == ("gate", pytest.approx(20), 2)
    assert msgspec.json.decode(msgspec.json.encode(then))["totals"]["answered"] == 30


def test_percentiles_forget_what_is_older_than_ten_seconds() -> None:
    snapshots = Snapshots()
    slow = status(100, 10.0, 1.0)
    for second in range(12):
        found = snapshots.add(slow, 100.0 + second)
    assert found.totals.p50 == pytest.approx(1000, rel=0.2)
    newer = status(150, 23.0, 1.0)
    newer["times"] = {"models": {"street": _and(slow, 50, 0.01)}}
    assert snapshots.add(newer, 112.0).totals.p50 == pytest.approx(10, rel=0.2)


def _and(older: dict[str, Any], jobs: int, seconds: float) -> dict[str, Any]:
    times = JobTimes()
    for _ in range(jobs):
        times.add((0.0,) * 6 + (seconds,))
    for _ in range(100):
        times.add((0.001, 0.002, 0.003, 0.5, 0.001, 0.001, 1.0))
    return times.status()


def test_another_gateway_counts_anew_and_no_rate_is_negative() -> None:
    snapshots = Snapshots()
    snapshots.add(status(500, 100.0), 100.0)
    found = snapshots.add(status(4, 1.0), 101.0)
    assert found.totals.answered == 4
    assert found.totals.fps >= 0
    assert found.models[0].batch == 2.0


def test_a_worker_that_is_down_is_counted_as_such() -> None:
    down = status(1)
    del down["workers"]["infer-street-0"]
    down["processes"]["infer-street-0"] = {"state": "down", "restarts": 3}
    found = Snapshots().add(down, 1.0)
    assert (found.totals.workers, found.totals.all_workers) == (2, 3)
    assert {process.name: process.restarts for process in found.processes}["infer-street-0"] == 3


def test_a_router_has_members_and_their_workers() -> None:
    member = {"address": "tcp://a:1", "state": "away", "problem": "no word", "models": ["street"]}
    routed = status(1) | {"members": {"a": {**member, "under_way": 2, "answered": 5, "sent": 7}}}
    for kind in ("workers", "processes"):
        routed[kind] = {f"a/{name}": facts for name, facts in routed[kind].items()}
    found = Snapshots().add(routed, 1.0)
    assert (found.totals.workers, found.totals.all_workers) == (3, 3)
    (shown,) = found.members
    assert (shown.name, shown.state, shown.problem, shown.models, shown.under_way) == ("a", "away", "no word", 1, 2)
    assert Snapshots().add(status(1), 1.0).members == []


# --- who is told ------------------------------------------------------------------------------------------------------


class Gateway:
    """Answers status requests, and counts them."""

    def __init__(self) -> None:
        self.asked = 0
        self.lost = False

    async def ask(self, kind: type[protocol.Request], timeout: float = 1.0, **fields: Any) -> Any:  # noqa: ASYNC109
        assert kind is protocol.Status
        self.asked += 1
        if self.lost:
            raise ServerUnavailable("it is gone")
        return msgspec.msgpack.encode(status(self.asked, 10.0 + self.asked) | {"served": [{"name": "street"}]})

    async def models(self, *, fresh: bool = False) -> dict[str, Any]:
        return {}


def kinds(events: list[bytes]) -> list[str]:
    return [event.split(b"\n")[0].removeprefix(b"event: ").decode() for event in events]


def test_nobody_is_asked_while_no_page_is_open() -> None:
    async def look() -> None:
        gateway = Gateway()
        feed = Feed(gateway, 4)  # type: ignore[arg-type]
        with feed.viewer() as events, feed.viewer() as others:
            seen = [await anext(events), await anext(events), await anext(others), await anext(others)]
            assert kinds(seen) == ["models", "state"] * 2
            assert gateway.asked == 1  # for both
            assert feed.is_running
        assert not feed.is_running
        asked = gateway.asked
        with feed.viewer() as events:
            assert kinds([await anext(events), await anext(events)]) == ["models", "state"]
        assert gateway.asked == asked + 1

    asyncio.run(look())


def test_a_gateway_that_is_gone_is_said_and_so_is_its_return(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parallel_infer.doors.http.page.feed.INTERVAL", 0.0)

    async def look() -> None:
        gateway = Gateway()
        gateway.lost = True
        feed = Feed(gateway, 1)  # type: ignore[arg-type]
        with feed.viewer() as events:
            lost = await anext(events)
            assert kinds([lost]) == ["lost"]
            assert b"it is gone" in lost
            gateway.lost = False
            while kinds([await anext(events)]) != ["state"]:
                pass
            with pytest.raises(ResourceUnavailable, match="page_viewers"), feed.viewer():
                pass
            feed.close()
            assert [event async for event in events if kinds([event]) == ["lost"]] == []  # it ends

    asyncio.run(look())


# --- over HTTP --------------------------------------------------------------------------------------------------------


def ask(page_server: Served, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(page_server.address + path, body, named), timeout=60
        ) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def events_of(stream: Any) -> Iterator[tuple[str, Any]]:
    while line := stream.readline():
        if line.startswith(b"event: "):
            yield line[7:].strip().decode(), json.loads(stream.readline()[6:])


def opened(page_server: Served) -> Any:
    return urllib.request.urlopen(f"{page_server.address}/page/live", timeout=60)


def test_a_page_is_told_models_and_figures(page_server: Served, pictures: Path) -> None:
    with opened(page_server) as stream:
        assert stream.headers["Content-Type"] == "text/event-stream"
        events = events_of(stream)
        kind, models = next(events)
        rows = {model["name"]: model["row"] for model in models}
        assert (kind, rows["classifier"]) == ("models", [224, 224])
        kind, first = next(events)
        assert kind == "state"
        page_server.infer("classifier", pictures / "chelsea.png")
        answered = next(state for kind, state in events if state["totals"]["answered"] > first["totals"]["answered"])
        assert answered["totals"]["p50"] > 0


def test_only_so_many_pages_are_open_at_a_time(page_server: Served) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(VIEWERS):
            next(events_of(stack.enter_context(opened(page_server))))
        code, headers, body = ask(page_server, "/page/live")
        assert (code, headers["Retry-After"]) == (503, "1")
        assert b"page_viewers" in body


@pytest.mark.parametrize("path", ["/", "/page/files/main.js", "/page/files/base.css"])
def test_the_pages_files_bring_their_rules(page_server: Served, path: str) -> None:
    code, headers, body = ask(page_server, path)
    assert (code, len(body) > 100) == (200, True)
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert b"http://" not in body.replace(b"http://www.w3.org/", b"").replace(b"http://localhost", b"")
    assert b"https://" not in body


@pytest.mark.parametrize(
    "path", ["/page/files/..%2froutes.py", "/page/files/%2e%2e/routes.py", "/page/files/x.css", "/page/files/%00.css"]
)
def test_nothing_else_is_read(page_server: Served, path: str) -> None:
    assert ask(page_server, path)[0] == 404


def test_pages_of_other_sites_are_kept_out(page_server: Served) -> None:
    assert ask(page_server, "/page/live", Sec_Fetch_Site="cross-site")[0] == 403
    assert ask(page_server, "/page/load", b'{"name": "x"}', Origin="http://evil.example")[0] == 403
    assert ask(page_server, "/page/load", b'{"name": "x", "way": 1}')[0] == 400
    assert ask(page_server, "/page/load", b'{"name": "x"}')[0] in (400, 404)


def test_parts_of_a_fan_that_was_answered_as_a_map_are_drawn() -> None:
    found = {"x": 50, "y": 40, "width": 60, "height": 40, "confidence": 0.9, "class": "cup", "class_id": 41}
    part = {"image": {"width": 100, "height": 80}, "predictions": [found]}
    answer = {"parts": {"broken": {"error": {"code": "POISON", "message": "no"}}, "detector": part}}
    frame = cv2.imencode(".png", np.zeros((80, 100, 3), np.uint8))[1].tobytes()
    seen = Seen("picture", (), {}, frame, "objects", msgspec.Raw(msgspec.msgpack.encode(answer)), b"")
    drawn = cv2.imdecode(np.frombuffer(preview(seen), np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape == (80, 100, 3)
    assert drawn[60, 50].max() > 60  # the lower edge of its box
    assert drawn[70, 50].max() < 30
