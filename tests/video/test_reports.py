"""What a server is told of sources by those that follow them."""

from __future__ import annotations

from pathlib import Path

from parallel_infer.video import Change, SourceState, Streams, StreamSettings
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
