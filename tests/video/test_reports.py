"""What a server is told of sources by those that follow them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from parallel_infer.observe.metrics import ServerMetrics
from parallel_infer.protocol import MAX_COUNTS
from parallel_infer.tracking.counting import Counts, LineCount, ZoneCount
from parallel_infer.tracking.settings import Tracking
from parallel_infer.tracking.shapes import Zone
from parallel_infer.video import Change, SourceState, Streams, StreamSettings
from parallel_infer.video.reports import counted
from tests.engine.serving import Server, eventually


def told(server: Server, source: str) -> dict[str, object]:
    with server.client() as client:
        found: dict[str, object] = client.status()["gateway"]["sources"].get(source, {}).get("client") or {}
    return found


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
