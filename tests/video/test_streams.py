"""Recordings, folders and bad sources through a real server, each captured by a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import struct
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest

from parallel_infer import Answer
from parallel_infer.errors import InferError
from parallel_infer.video import Change, Drop, Result, SourceState, Streams, StreamSettings
from tests.video.conftest import FRAMES

SEGMENTS = Path("/dev/shm")
FAST = {"first_pause": 0.05, "longest_pause": 0.1}


def watch(streams, seen=None):
    """All results and all changes, by source; `seen` is told every event as it comes."""
    results, changes = defaultdict(list), defaultdict(list)
    for event in streams:
        if seen is not None:
            seen(event)
        (results if isinstance(event, Result) else changes)[event.source].append(event)
    return results, changes


def states(changes):
    return [change.state.value for change in changes]


def decoded(video):
    capture = cv2.VideoCapture(str(video))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames


@pytest.mark.parametrize("door", [0, 1], ids=["lent", "own"])
def test_every_frame_of_a_file_in_order_with_its_own_pixels(server, video, door):
    frames = decoded(video)
    rings: set[str] = set()

    def look(event):
        rings.update(path.name for path in SEGMENTS.glob("pinfer-*-video-*"))
        if isinstance(event, Result):
            assert np.array_equal(event.pixels, frames[event.frame])

    with Streams([str(video)], "detector", server.addresses[door]) as streams:
        results, changes = watch(streams, look)
    own = {name for name in rings if not (SEGMENTS / name).exists()}
    assert bool(own) == (door == 1)
    assert states(changes[str(video)]) == ["connecting", "live", "ended"]
    found = results[str(video)]
    assert [result.frame for result in found] == list(range(FRAMES))
    with server.client() as client:
        for result in found[::10]:
            assert np.allclose(result.answer.boxes, client.infer("detector", frames[result.frame]).boxes)
    assert streams.tallies[str(video)].counts()["dropped"] == 0
    assert all(result.age > 0 for result in found)


def turned(video, matrix):
    """The recording with another display matrix, as phones write it: numbers of 16.16 in the track's header."""
    content = bytearray(video.read_bytes())
    start = content.index(b"tkhd") + 4 + 40  # past version, times, track, duration, layer, volume
    content[start : start + 36] = struct.pack(">9i", *matrix)
    return bytes(content)


ONE, W = 1 << 16, 1 << 30


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((0, ONE, 0, -ONE, 0, 0, 240 * ONE, 0, W), cv2.ROTATE_90_CLOCKWISE),
        ((-ONE, 0, 0, 0, -ONE, 0, 320 * ONE, 240 * ONE, W), cv2.ROTATE_180),
    ],
    ids=["90", "180"],
)
def test_a_recording_of_a_phone_is_turned_upright(server, video, tmp_path, matrix, turn):
    path = tmp_path / "phone.mp4"
    path.write_bytes(turned(video, matrix))
    expected = [cv2.rotate(frame, turn) for frame in decoded(video)]
    shapes = set()

    def look(event):
        if isinstance(event, Result):
            assert np.array_equal(event.pixels, expected[event.frame])
            shapes.add((event.answer.height, event.answer.width))

    with Streams([str(path)], "detector", server.addresses[0]) as streams:
        results, _ = watch(streams, look)
    assert len(results[str(path)]) == FRAMES
    assert shapes == {expected[0].shape[:2]}


def test_a_live_source_drops_and_counts_every_frame_it_drops(server, video):
    source = f"realtime:{video}"
    with Streams([source], "detector", server.address) as streams:
        ages = []
        for event in streams:
            if isinstance(event, Result):
                ages.append(event.age)
                if len(ages) == 1:
                    os.waitid(os.P_PID, streams.feed(source).process.pid, os.WEXITED | os.WNOWAIT)
        tally = streams.tallies[source]
    assert tally.dropped >= FRAMES / 2  # nobody looked until the recording was over
    assert tally.frames == FRAMES
    assert tally.answered == len(ages) >= 2


def test_oldest_keeps_a_few_and_counts_the_others(server, video):
    settings = StreamSettings(drop=Drop.OLDEST)
    source = f"realtime:{video}"
    with Streams([source], "detector", server.address, settings=settings) as streams:
        results, _ = watch(streams)
        tally = streams.tallies[source]
    numbers = [result.frame for result in results[source]]
    assert numbers == sorted(set(numbers))
    assert tally.frames == FRAMES == tally.answered + tally.dropped


def test_frames_too_old_are_expired_and_never_answered(server, video):
    with Streams([str(video)], "detector", server.address, settings=StreamSettings(max_age=1e-6)) as streams:
        results, changes = watch(streams)
    tally = changes[str(video)][-1].tally
    assert not results[str(video)]
    assert (tally.expired, tally.answered, tally.dropped) == (FRAMES, 0, 0)


def test_at_most_so_many_frames_per_second(server, video):
    with Streams([str(video)], "detector", server.address, settings=StreamSettings(fps=5)) as streams:
        results, _ = watch(streams)
        assert streams.tallies[str(video)].dropped == 0
    found = results[str(video)]
    assert [result.frame for result in found] == [0, 5, 10, 15, 20, 25]
    assert [result.turn for result in found] == list(range(6))


def test_bad_sources_fail_by_name_and_leave_the_others_alone(server, video, tmp_path, pictures):
    garbage = tmp_path / "garbage.mp4"
    garbage.write_bytes(os.urandom(20_000))
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(video.read_bytes()[:5000])
    (tmp_path / "empty").mkdir()
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    shutil.copy(pictures / "chelsea.png", mixed / "a.png")
    (mixed / "b.png").write_bytes(b"no picture")
    shutil.copy(pictures / "astronaut.png", mixed / "c.png")
    bad = {
        str(tmp_path / "missing.mp4"): "no such file",
        str(garbage): "cannot be opened as a video",
        str(cut): "cannot be opened as a video",
        str(tmp_path / "empty"): "holds no pictures",
        "9999": "there is no such camera",
    }
    sources = [*bad, str(video), str(mixed)]
    with Streams(sources, "detector", server.address, settings=StreamSettings(attempts=0)) as streams:
        results, changes = watch(streams)
    for source, message in bad.items():
        assert states(changes[source]) == ["connecting", "failed"]
        assert message in changes[source][-1].message
        assert not results[source]
    assert len(results[str(video)]) == FRAMES
    first, broken, last = results[str(mixed)]
    assert (first.answer.width, last.answer.width) == (451, 512)
    assert isinstance(broken.answer, InferError)
    assert "b.png" in str(broken.answer)
    assert broken.pixels is None
    assert changes[str(mixed)][-1].tally.failed == 1


def test_a_recording_that_stops_early_has_failed(server, video, tmp_path):
    """An AVI file whose header promises more than there is."""
    path = tmp_path / "cut.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (320, 240))
    for frame in decoded(video):
        writer.write(frame)
    writer.release()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with Streams([str(path)], "detector", server.address) as streams:
        results, changes = watch(streams)
    assert states(changes[str(path)]) == ["connecting", "live", "failed"]
    assert f"of {FRAMES} frames" in changes[str(path)][-1].message
    assert 0 < len(results[str(path)]) < FRAMES


def test_an_unknown_model_fails_the_source_once(server, video):
    with Streams([str(video)], "nobody", server.address) as streams:
        _, changes = watch(streams)
    assert states(changes[str(video)])[-1] == "failed"
    assert "UNKNOWN_MODEL" in changes[str(video)][-1].message


def test_a_capture_that_dies_fails_a_recording(server, video):
    with Streams([f"realtime:{video}"], "detector", server.address) as streams:
        changes = []
        for event in streams:
            if isinstance(event, Change):
                changes.append(event)
            elif streams.feed(event.source).process is not None:
                os.kill(streams.feed(event.source).process.pid, signal.SIGKILL)
    assert changes[-1].state is SourceState.FAILED
    assert changes[-1].message == "the capture process died"


def test_leaving_early_ends_everything(server, video):
    with Streams([f"realtime:{video}", str(video)], "detector", server.addresses[1]) as streams:
        for event in streams:
            if isinstance(event, Result) and isinstance(event.answer, Answer):
                break
        stopped = list(streams.stop())
    assert {change.state for change in stopped} <= {SourceState.ENDED}
    assert all(streams.feed(name).state.final for name in streams.tallies)
