"""The doors of a router: a process each, clients of the router at an address that only this user reaches."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import msgspec

from parallel_infer.config.route_schema import RouteConfig
from parallel_infer.config.schema import ServerConfig
from parallel_infer.doors.known import DOORS
from parallel_infer.doors.options import DoorOptions
from parallel_infer.errors import ConfigError
from parallel_infer.ipc.channel import Watch
from parallel_infer.ipc.messages import Alive, DoorActivity, DoorState, Listening, StartFailed
from parallel_infer.process.spawn import Process

log = logging.getLogger(__name__)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0  # seconds before a door that died is started again
_BEATS = 4  # unanswered ones after which a door counts as stuck, as in a server's supervisor
_ENDING = 5.0  # seconds that doors have to end
_NOTHING = DoorActivity()


class DoorProcess:
    """One door, whatever process it has at the moment."""

    def __init__(self, name: str, entry: str, options: DoorOptions) -> None:
        self.name = name
        self.entry = entry
        self.options = options
        self.process: Process | None = None
        self.addresses: tuple[str, ...] = ()
        self.activity = _NOTHING
        self.restarts = 0
        self.start_at: float | None = None
        self.failure = ""  # why its process says that it cannot start
        self.unanswered: int | None = None  # questions for a sign of life; None: this process does not listen yet
        self._pause = _FIRST_PAUSE

    def start(self) -> int:
        """Start its process; the descriptor that tells of it."""
        self.start_at, self.failure, self.activity, self.unanswered = None, "", _NOTHING, None
        self.options = msgspec.structs.replace(self.options, epoch=self.restarts + 1)
        self.process = Process(f"{self.name}.{self.restarts + 1}", self.entry, self.options)
        return self.process.connection.fileno()

    def died(self, now: float) -> None:
        """Its process is dead: plan the next one."""
        if self.process is not None:
            self.process.ended(None)
            self.process.close()
        self.process = None
        self.restarts += 1
        self.start_at = now + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def beat(self) -> None:
        """Ask its process for a sign of life, or kill one that has given none; its death is told like any other."""
        if self.process is None or self.unanswered is None:
            return
        if self.unanswered < _BEATS:
            self.unanswered += 1
            self.process.ask_for_life()
        else:
            log.error("the %s door hangs (option silence_limit_ms)", self.name)
            self.unanswered = None
            self.process.kill()

    def state(self) -> dict[str, Any]:
        """As the status of a server has it."""
        up = self.process is not None and bool(self.addresses)
        state = DoorState(
            kind=self.name,
            addresses=self.addresses,
            state="up" if up else "down",
            restarts=self.restarts,
            **msgspec.structs.asdict(self.activity),
        )
        return msgspec.structs.asdict(state)


class DoorProcesses:
    """All of them: started, watched, started again, ended."""

    def __init__(self, config: RouteConfig, inside: str, watch: Watch) -> None:
        """`inside` is the router's address for them."""
        server = ServerConfig(
            http=config.http, grpc=config.grpc, http_hosts=config.http_hosts, max_clients=config.max_clients
        )
        told = DoorOptions(
            log_format=config.log_format,
            log_level=config.log_level,
            gateway=inside,
            timeout=config.timeout_ms / 1000,
            max_payload=int(config.max_payload_mb * 2**20),
            keys=config.keys,
            version=version("parallel-infer"),
        )
        self._watch = watch
        self._interval = config.silence_limit_ms / 1000 / _BEATS
        self._beat_at = 0.0
        self._doors = [
            DoorProcess(door.name, door.entry, options)
            for door in DOORS
            if (options := door.options(server, msgspec.structs.asdict(told))) is not None
        ]
        self._by_descriptor: dict[int, DoorProcess] = {}

    def start(self) -> None:
        """Start all of them."""
        for door in self._doors:
            self._start(door)

    def _start(self, door: DoorProcess) -> None:
        descriptor = door.start()
        self._by_descriptor[descriptor] = door
        self._watch.add(descriptor)

    @property
    def all_listen(self) -> bool:
        """Whether clients can come in at every door."""
        return all(door.addresses for door in self._doors)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where they listen."""
        return tuple(address for door in self._doors for address in door.addresses)

    def states(self) -> dict[str, dict[str, Any]]:
        """Each of them, for the status."""
        return {door.name: door.state() for door in self._doors}

    def take_in(self, there: set[Any]) -> None:
        """What doors have said. Raises ConfigError for one that never listened and says why it cannot."""
        for descriptor in [each for each in there if each in self._by_descriptor]:
            door = self._by_descriptor[descriptor]
            while door.process is not None and door.process.has_message:
                self._take(door, descriptor)

    def _take(self, door: DoorProcess, descriptor: int) -> None:
        assert door.process is not None
        match door.process.receive():
            case Listening(addresses=addresses):
                door.addresses, door.unanswered = addresses, 0
                bound = tuple(address.partition("://")[2] for address in addresses)
                door.options = msgspec.structs.replace(door.options, bind=bound)  # its successor listens there as well
            case Alive():
                door.unanswered = 0
            case DoorActivity() as activity:
                door.activity = activity
            case StartFailed(text=text):
                door.failure = text
            case None:
                del self._by_descriptor[descriptor]
                self._watch.remove(descriptor)
                door.died(time.monotonic())
                if not door.addresses:
                    raise ConfigError(
                        f"the {door.name} door did not start: {door.failure or 'it ended without a word'}"
                    )
                log.error("the %s door has ended and is started again", door.name)
            case _:
                pass

    def next_timer(self) -> Iterator[float]:
        """When doors are to be started again, or asked for a sign of life."""
        if self._doors:
            yield self._beat_at
        yield from (door.start_at for door in self._doors if door.start_at is not None)

    def on_timer(self, now: float) -> None:
        """Start again what has died, and see to what hangs: questions are counted, not seconds."""
        if self._doors and now >= self._beat_at:
            self._beat_at = now + self._interval
            for door in self._doors:
                door.beat()
        for door in self._doors:
            if door.start_at is not None and door.start_at <= now:
                self._start(door)

    def end(self) -> None:
        """Let them answer what they have, and end."""
        running = [door.process for door in self._doors if door.process is not None]
        for door in self._doors:
            door.process = None
        for process in running:
            process.ask_to_end()
        until = time.monotonic() + _ENDING
        for process in running:
            if not process.ended(max(0.0, until - time.monotonic())):
                process.kill()
            process.close()
