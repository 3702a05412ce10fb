"""The children of a run: which places there are, which processes fill them, and how they are heard of."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator

from parallel_infer.ipc.channel import Watch
from parallel_infer.ipc.messages import Expect, FromChild, ProcessState
from parallel_infer.process.spawn import Process
from parallel_infer.supervisor.child_specs import Place, Role

log = logging.getLogger(__name__)


class Children:
    """Starts, watches and ends processes; what their words and their deaths mean is not decided here."""

    def __init__(self, watch: Watch, start_timeout: float) -> None:
        self.places: dict[str, Place] = {}
        self._watch = watch
        self._start_timeout = start_timeout  # seconds
        self._watched: dict[int, tuple[Place, Process]] = {}

    def hire(self, place: Place) -> None:
        """Fill a new place, and keep it filled."""
        self.places[place.name] = place
        self.start(place)

    def start(self, place: Place) -> None:
        """Fill a place."""
        process = place.start()
        place.up_by = time.monotonic() + self._start_timeout
        for descriptor in (process.sentinel, process.connection.fileno()):
            self._watched[descriptor] = place, process
            self._watch.add(descriptor)

    def dismiss(self, place: Place) -> None:
        """End a place and its process."""
        self.places.pop(place.name, None)
        process, place.process = place.process, None
        if process is not None:
            self._forget(process.sentinel, process.connection.fileno())
            process.kill()
            process.close()

    def concerned(self, descriptor: int) -> tuple[Place, Process] | None:
        """Whom a descriptor tells of."""
        return self._watched.get(descriptor)

    def words(self, process: Process) -> Iterator[FromChild]:
        """What a child has said since, without waiting."""
        descriptor = process.connection.fileno()
        while descriptor in self._watched and process.has_spoken:
            word = process.heard()
            if word is None:
                self._forget(descriptor)
                return
            yield word

    def bury(self, process: Process) -> int | None:
        """Give up what is kept of a dead child; its exit code."""
        process.reap()
        code = process.exit_code
        self._forget(process.sentinel, process.connection.fileno())
        process.close()
        return code

    def kill(self, worker: str, why: str) -> None:
        """Kill the process of this name, if it is the one that fills its place."""
        for place in self.places.values():
            if place.process is not None and place.process.name == worker:
                log.warning("%s is killed: it %s", place.name, why)
                place.process.kill()

    def end_late(self, now: float) -> None:
        """Kill what hangs in its start; what follows is that of any death."""
        for place in self.places.values():
            if place.late_at is not None and place.late_at <= now:
                log.warning("%s is killed: it hangs in its start (option start_timeout_ms)", place.name)
                place.up_by = math.inf  # once
                if place.process is not None:
                    place.process.kill()

    def end(self, until: float) -> None:
        """Wait for everybody's end, and kill who has not ended by `until`."""
        for place, process in set(self._watched.values()):
            # What is not up holds nothing, and would not hear that it shall go.
            if not place.up or not process.reap(max(0.0, until - time.monotonic())):
                process.kill()

    def processes(self) -> dict[str, ProcessState]:
        """How each is, for the status."""
        return {
            place.name: ProcessState("up" if place.up else "down", place.restarts) for place in self.places.values()
        }

    def introduction(self) -> Expect:
        """Who lives, for a dispatcher that has just started."""
        workers: list[str] = []
        starting: list[str] = []
        gateway = ""
        for place in self.places.values():
            if place.process is not None and place.role == Role.WORKER:
                (workers if place.up else starting).append(place.process.name)
            elif place.process is not None and place.role == Role.GATEWAY:
                gateway = place.process.name
        return Expect(tuple(workers), gateway, tuple(starting))

    def _forget(self, *descriptors: int) -> None:
        for descriptor in descriptors:
            self._watched.pop(descriptor, None)
            self._watch.remove(descriptor)
