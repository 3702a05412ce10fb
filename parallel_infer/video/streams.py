"""Several sources through one server: one loop, one connection, one capture process per source."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any, Self

from parallel_infer.client.connection import SLICE, Connection
from parallel_infer.client.endpoint import Address
from parallel_infer.keys.client import HasKeys, Key
from parallel_infer.shm.segment import RunMark, sweep
from parallel_infer.video.counts import Tally
from parallel_infer.video.events import Change, Result
from parallel_infer.video.feed import Feed
from parallel_infer.video.in_flight import FramesInFlight
from parallel_infer.video.memory import Memory
from parallel_infer.video.reports import Reports
from parallel_infer.video.settings import StreamSettings
from parallel_infer.video.sources import Source, sources_of

_IDLE = 1.0  # seconds between two looks where nothing is on its way


class Streams:
    """Sources being watched: iterate for what happens, a `Result` per frame and a `Change` per new state.

    The iteration ends when every source has ended or failed; a second one goes on where the first was left. Used in a
    `with`, by one thread. What is done between two events delays all sources; live ones then drop frames, and count
    them.
    """

    def __init__(
        self,
        sources: Sequence[str | Source],
        model: str,
        address: str = "tcp://127.0.0.1:5555",
        key: str | os.PathLike[str] | HasKeys | None = None,
        settings: StreamSettings | None = None,
    ) -> None:
        self.sources = sources_of(sources)
        self._model = model
        self.settings = settings or StreamSettings()
        self._connection = Connection(Address(address, None if key is None else Key.of(key)))
        self._reports = Reports(self._connection)
        self._mark: RunMark | None = None
        self._segments = 0
        self._feeds = {source.name: self._feed(source) for source in self.sources}
        self._started = False
        self._ending = False
        self._closed = False

    @property
    def tallies(self) -> dict[str, Tally]:
        """What became of the frames so far, by source."""
        return {name: feed.tally for name, feed in self._feeds.items()}

    def feed(self, source: str) -> Feed:
        """One source, for its state, frame rate and length."""
        return self._feeds[source]

    def __iter__(self) -> Iterator[Result | Change]:
        if not self._started:
            self._started = True
            for feed in self._feeds.values():
                feed.start()
        while not self._closed:
            if self._ending:
                yield from self.stop()
                self._report()
                return
            self._exchange()
            for feed in self._feeds.values():
                for event in feed.events():
                    self._reports.note(event, time.monotonic())
                    yield event
            self._report()
            if all(feed.state.final for feed in self._feeds.values()):
                return
            self._wait()

    def _report(self) -> None:
        self._reports.step(self._feeds.values(), time.monotonic())

    def end(self) -> None:
        """Have the iteration end soon. May be called from a signal handler or another thread."""
        self._ending = True

    def stop(self, message: str = "stopped") -> Iterator[Change]:
        """End every source that has not ended, and tell so."""
        for feed in self._feeds.values():
            yield from feed.stop(message)

    def close(self) -> None:
        """End every capture process and remove what is in shared memory."""
        if self._closed:
            return
        self._closed = True
        for feed in self._feeds.values():
            feed.close()
        self._connection.close()
        if self._mark is not None:
            self._mark.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _feed(self, source: Source) -> Feed:
        memory = Memory(self._connection, self.settings.slots(source), self._segment_name)
        frames = FramesInFlight(source, self._model, self.settings, self._connection, memory)
        return Feed(source, self.settings, memory, frames)

    def _segment_name(self) -> str:
        """A name for a ring of our own; the first one needs a mark that this run is alive."""
        if self._mark is None:
            sweep()
            self._mark = RunMark()
        self._segments += 1
        return self._mark.segment_name(f"video-{self._segments}")

    def _exchange(self) -> None:
        """Settle replies, let every source do what is due, and settle again what came meanwhile.

        The descriptor of the socket tells only of changes, and any use of the socket may swallow one: therefore the
        last thing before waiting is to drain.
        """
        self._connection.drain()
        self._connection.upkeep_if_due()
        for feed in self._feeds.values():
            feed.step(time.monotonic())
        if self._connection.stuck:
            self._connection.flush()
        self._connection.drain()

    def _wait(self) -> None:
        """Wait for a reply, a word from a capture process, or the next thing that is due."""
        things: list[Any] = [self._connection.socket.fileno()]
        feeds = self._feeds.values()
        things += [feed.process.connection for feed in feeds if feed.process is not None]
        due = min(feed.timer for feed in feeds) - time.monotonic()
        longest = _IDLE if self._connection.idle else SLICE
        wait(things, max(0.0, min(due, longest)))
