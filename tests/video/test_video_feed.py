"""A capture process that cannot die, as one that a driver holds in the kernel: its memory is fenced, others go on."""

from __future__ import annotations

import os
import signal

from parallel_infer.video import Change, Result, SourceState, Streams, StreamSettings
from parallel_infer.video.capture_process import CaptureProcess
from parallel_infer.video.pipe import Order, Place
from tests.video.mjpeg import jpeg


def test_the_memory_of_a_capture_that_cannot_die_is_used_by_nobody_else(server, play_camera, monkeypatch):
    def play(viewer):
        viewer.begin()
        while True:
            viewer.send(jpeg(240, 320, 1))

    camera = play_camera(play)
    given: dict[CaptureProcess, list[Place]] = {}
    give = CaptureProcess.give

    def note(process: CaptureProcess, word: Order | Place) -> None:
        if isinstance(word, Place):
            given.setdefault(process, []).append(word)
        give(process, word)

    monkeypatch.setattr(CaptureProcess, "give", note)
    settings = StreamSettings(first_pause=0.05, silence=2.0)
    with Streams([camera.url], "detector", server.address, settings=settings) as streams:
        feed = streams.feed(camera.url)
        events = iter(streams)
        next(event for event in events if isinstance(event, Result))
        stuck = feed.process
        assert stuck is not None
        with monkeypatch.context() as patch:
            patch.setattr(stuck, "kill", lambda: os.kill(stuck.pid, signal.SIGSTOP))
            os.kill(stuck.pid, signal.SIGSTOP)  # silent: it is killed, in vain
            next(event for event in events if isinstance(event, Change) and event.state is SourceState.LIVE)
            assert next(event for event in events if isinstance(event, Result))
            assert feed.process is not stuck
        CaptureProcess.kill(stuck)
    segments = {process: {place.segment for place in places} for process, places in given.items()}
    assert segments.keys() > {stuck}
    assert all(segments[stuck].isdisjoint(of) for process, of in segments.items() if process is not stuck)
