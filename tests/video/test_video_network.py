"""Network sources that come and go: a real HTTP camera that hangs up, falls silent, or sends rubbish."""

from __future__ import annotations

import itertools
import signal

import psutil

from parallel_infer.video import Change, Result, SourceState, Streams, StreamSettings
from tests.video.mjpeg import jpeg

QUICK = StreamSettings(first_pause=0.05, longest_pause=0.1, silence=2.0, opening=3.0, attempts=3)


def forever(viewer, height=240):
    viewer.begin()
    for number in itertools.count():
        viewer.send(jpeg(height, 320, number))


def until(streams, wanted):
    """Events up to the first that is wanted."""
    seen = []
    for event in streams:
        seen.append(event)
        if wanted(event):
            return seen
    raise AssertionError(f"ended without it: {seen}")


def changes(events):
    return [event for event in events if isinstance(event, Change)]


def test_a_camera_that_hangs_up_is_connected_to_again_and_its_frames_count_on(server, play_camera):
    def play(viewer):
        if viewer.number > 0:
            forever(viewer, height=480)  # it comes back with another size
            return
        viewer.begin()
        for number in range(60):
            viewer.send(jpeg(240, 320, number))

    camera = play_camera(play)
    url = camera.url.replace("//", "//user:hunter2@")
    with Streams([url], "detector", server.address, settings=QUICK) as streams:
        seen = until(streams, lambda event: isinstance(event, Result) and event.answer.height == 480)
        last = seen[-1]
        assert last.pixels.shape == (480, 320, 3)
        frames = [event.frame for event in seen if isinstance(event, Result)]
        assert frames == sorted(set(frames))
        assert last.frame >= 60
    told = changes(seen)
    assert [change.state.value for change in told] == ["connecting", "live", "reconnecting", "live"]
    assert "delivers no more frames; next attempt in 0.05 s" in told[2].message
    assert "hunter2" not in repr(seen)
    assert last.source == url.replace("user:hunter2", "***")


def test_silence_and_rubbish_are_told_apart_and_other_sources_go_on(server, play_camera, video):
    def silent(viewer):
        viewer.begin()
        viewer.wait_until_gone()

    def rubbish(viewer):
        viewer.begin()
        viewer.send_bytes(b"\x93rubbish" * 10_000)

    def falls_silent(viewer):
        viewer.begin()
        for number in range(60):
            viewer.send(jpeg(240, 320, number))
        viewer.wait_until_gone()

    cameras = [play_camera(play).url for play in (silent, rubbish, falls_silent)]
    settings = StreamSettings(first_pause=0.05, longest_pause=0.05, silence=1.5, opening=1.5, attempts=0)
    messages = {}
    with Streams([*cameras, str(video)], "detector", server.address, settings=settings) as streams:
        for event in streams:
            if isinstance(event, Change) and event.state.final:
                messages[event.source] = event.state, event.message
        tally = streams.tallies[cameras[2]]
    assert messages[str(video)][0] is SourceState.ENDED
    assert "cannot be opened as a video: nothing came for" in messages[cameras[0]][1]
    assert "cannot be opened as a video" in messages[cameras[1]][1]
    assert "the stream delivered nothing for" in messages[cameras[2]][1]
    assert tally.frames == 60
    assert tally.answered > 0


def test_a_capture_that_hangs_or_dies_is_replaced(server, play_camera):
    camera = play_camera(forever)
    with Streams([camera.url], "detector", server.address, settings=QUICK) as streams:
        until(streams, lambda event: isinstance(event, Result))
        first = psutil.Process(streams.feed(camera.url).process.pid)
        first.send_signal(signal.SIGSTOP)
        seen = until(streams, lambda event: isinstance(event, Change) and event.state is SourceState.LIVE)
        assert "nothing came any more" in changes(seen)[0].message
        assert not psutil.pid_exists(first.pid)
        second = psutil.Process(streams.feed(camera.url).process.pid)
        second.kill()
        seen = until(streams, lambda event: isinstance(event, Change) and event.state is SourceState.LIVE)
        assert "the capture process died" in changes(seen)[0].message
        until(streams, lambda event: isinstance(event, Result))
        assert streams.tallies[camera.url].restarts == 2


def test_a_source_that_is_never_there_fails_after_its_attempts(server, play_camera):
    camera = play_camera(forever)
    url = f"http://user:hunter2@{camera.host}/camera"
    camera.close = lambda: None  # closed here already
    type(camera).close(camera)
    settings = StreamSettings(first_pause=0.01, longest_pause=0.02, attempts=2)
    with Streams([url], "detector", server.address, settings=settings) as streams:
        told = list(streams)
    assert [change.state.value for change in told] == ["connecting", "reconnecting", "reconnecting", "failed"]
    assert "refused" in told[-1].message
    assert "hunter2" not in repr(told)
