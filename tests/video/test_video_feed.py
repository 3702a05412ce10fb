"""A capture process that cannot die, as one that a driver holds in the kernel: its memory is fenced, others go on."""

from __future__ import annotations

import signal

from parallel_infer.video import Change, Result, SourceState, Streams, StreamSettings
from parallel_infer.video.capture_process import CaptureProcess
from tests.video.mjpeg import jpeg


def test_the_memory_of_a_capture_that_cannot_die_is_used_by_nobody_else(server, play_camera, monkeypatch):
    def play(viewer):
        viewer.begin()
        while True:
            viewer.send(jpeg(240, 320, 1))

    camera = play_camera(play)
    settings = StreamSettings(first_pause=0.05, silence=2.0)
    with Streams([camera.url], "detector", server.address, settings=settings) as streams:
        feed = streams.feed(camera.url)
        events = iter(streams)
        next(event for event in events if isinstance(event, Result))
        stuck = feed.process
        assert stuck is not None
        held = [slot.array for slot, _ in feed._given.values()]
        with monkeypatch.context() as patch:
            patch.setattr(stuck, "kill", lambda: stuck.process.send_signal(signal.SIGSTOP))
            stuck.process.send_signal(signal.SIGSTOP)  # silent: it is killed, in vain
            next(event for event in events if isinstance(event, Change) and event.state is SourceState.LIVE)
            given = [slot.array for slot, _ in feed._given.values()]
            assert not any(_overlap(one, other) for one in held for other in given)
            assert next(event for event in events if isinstance(event, Result))
        CaptureProcess.kill(stuck)


def _overlap(one, other):
    return one.ctypes.data == other.ctypes.data
