"""What a server is told of sources by those that follow them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import msgspec
import numpy as np
import pytest

from parallel_infer import Answer
from parallel_infer.client.pending import Pending
from parallel_infer.doors.http.page.previews import Seen, preview
from parallel_infer.observe.metrics import ServerMetrics
from parallel_infer.protocol import MAX_COUNTS
from parallel_infer.tracking.counting import Counts, LineCount, ZoneCount
from parallel_infer.tracking.settings import Tracking
from parallel_infer.tracking.shapes import Zone
from parallel_infer.video import Change, Result, SourceState, Streams, StreamSettings
from parallel_infer.video.counts import Tally
from parallel_infer.video.reports import Reports, counted
from tests.engine.serving import Server, eventually


def told(server: Server, source: str) -> dict[str, object]:
    with server.client() as client:
        found: dict[str, object] = client.status()["gateway"]["sources"].get(source, {}).get("client") or {}
    return found


class Told:
    """Takes reports as a connection does, and answers each at once."""

    def __init__(self) -> None:
        self.posted: list[Pending] = []
        self.result: object = {}

    def number(self) -> int:
        return len(self.posted) + 1

    def post(self, pending: Pending) -> None:
        self.posted.append(pending)
        pending.settle(msgspec.Raw(msgspec.msgpack.encode(self.result)))


def test_what_is_followed_is_drawn_for_somebody_who_looks(pictures: Path) -> None:
    frame = cv2.imread(str(pictures / "astronaut.png"))
    height, width = frame.shape[:2]
    arrays = {"boxes": np.float32([[50, 50, 400, 500]]), "scores": np.float32([0.9]), "classes": np.int64([0])}
    plain = Answer("detect", "d", arrays, {0: "person"}, width=width, height=height)
    followed = Answer("detect", "d", {**arrays, "track_ids": np.int64([7])}, {0: "person"}, width=width, height=height)
    counts = Counts(lines=(LineCount("gate", np.array([[256.0, 0.0], [256.0, 512.0]]), {}, {}),))
    tally = Tally()
    seen = Result("gate", 0, 0, 0.0, 0.0, followed, tally, frame, counts=counts)
    feed = SimpleNamespace(
        source=SimpleNamespace(name="gate"), state=SourceState.LIVE, message="", tally=tally, counts=None
    )
    server = Told()
    reports = Reports(server)  # type: ignore[arg-type]

    def step(now: float, result: Result = seen) -> bytes | None:
        before = len(server.posted)
        reports.note(result, now)
        reports.step([feed], now)  # type: ignore[list-item]
        return server.posted[-1].payload if len(server.posted) > before else None

    assert [step(0.0), step(6.0)] == [None, None]  # nobody looks
    server.result = {"watched": True}
    assert step(12.0) is None  # it is told by the reply
    assert step(12.5, replace(seen, answer=plain, counts=None)) is None  # the server can draw that by itself
    jpeg = step(12.5)
    assert jpeg is not None
    drawn = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape == (384, 384, 3)
    blue, green, red = (drawn[:, :, channel].astype(int) for channel in range(3))
    yellow = (np.minimum(green, red) - blue > 100).mean(0)
    assert yellow[190:195].max() > 0.5 > yellow[[*range(180), *range(204, 384)]].max(), "the line is in its place"
    assert step(13.0) is None  # one in two seconds
    shown = cv2.imdecode(np.frombuffer(preview(a_look(jpeg)), np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(shown.astype(int) - drawn).mean() < 3
    larger = a_look(cv2.imencode(".jpg", np.zeros((400, 400, 3), np.uint8))[1].tobytes())
    with pytest.raises(ValueError, match="up to 384x384 are shown .option page_picture_pixels"):
        preview(larger)
    assert cv2.imdecode(np.frombuffer(preview(larger, 400), np.uint8), cv2.IMREAD_COLOR).shape == (400, 400, 3)
    server.result = {"watched": True, "pixels": 200}
    step(18.0)
    smaller = step(20.5)
    assert smaller is not None
    assert cv2.imdecode(np.frombuffer(smaller, np.uint8), cv2.IMREAD_COLOR).shape == (200, 200, 3)


def a_look(jpeg: bytes) -> Seen:
    return Seen("drawn", (), {}, jpeg, "arrays", msgspec.Raw(b"\xc0"), b"")


def test_a_server_knows_how_its_sources_are(server: Server, video: Path) -> None:
    name = f"realtime:{video}"
    with Streams([name], "detector", server.address) as streams:
        for event in streams:
            if isinstance(event, Change) and event.state is SourceState.LIVE:
                eventually(lambda: told(server, name).get("state") in ("connecting", "live"))
        counts = streams.tallies[name]
    eventually(lambda: told(server, name).get("state") == "ended")  # the last word is told before the end
    assert told(server, name)["dropped"] == counts.dropped


def test_a_source_that_is_not_there_is_told_with_the_reason(server: Server, tmp_path: Path) -> None:
    name = str(tmp_path / "nothing.mp4")
    with Streams([name], "detector", server.address, settings=StreamSettings(first_pause=0.05)) as streams:
        changes = [event for event in streams if isinstance(event, Change)]
    eventually(lambda: told(server, name).get("state") == "failed")
    assert told(server, name)["message"] == changes[-1].message


def test_what_was_counted_is_told_and_is_a_metric(server: Server, video: Path) -> None:
    whole = Zone("all of it", ((0, 0), (1, 0), (1, 1), (0, 1)))
    settings = StreamSettings(track=Tracking(zones=(whole,)))
    with Streams([str(video)], "detector", server.address, settings=settings) as streams:
        last = list(streams)[-1]
        assert isinstance(last, Change)
        assert last.counts is not None
        entered = last.counts.zones[0].entered["person"]
    eventually(lambda: told(server, str(video)).get("state") == "ended")
    with server.client() as client:
        metrics = {metric.name: metric for metric in ServerMetrics(client.status).collect()}
    (sample,) = (
        sample
        for sample in metrics["parallel_infer_zone_entered"].samples
        if (sample.labels["source"], sample.labels["class"]) == (str(video), "person")
    )
    assert (sample.labels["zone"], sample.value) == ("all of it", entered)


def test_of_too_many_counts_the_greatest_are_told() -> None:
    points = np.zeros((2, 2))
    line = LineCount("door", points, {f"{number} {'k' * 70}": number for number in range(1, 150)}, {"person": 1000})
    zone = ZoneCount("yard", points, {"dog": 1}, {"dog": 500, "cat": 400})
    found = counted(Counts((line,), (zone,)))
    assert len(found) == MAX_COUNTS
    assert [(one.what, one.kind, one.number) for one in found[:4]] == [
        ("out", "person", 1000),
        ("entered", "dog", 500),
        ("entered", "cat", 400),
        ("in", f"149 {'k' * 60}", 149),
    ]
    few = counted(Counts((), (zone,)))
    assert {(one.what, one.kind, one.number) for one in few} == {
        ("entered", "dog", 500),
        ("entered", "cat", 400),
        ("present", "dog", 1),
        ("present", "cat", 0),
    }
    assert counted(None) == ()
