"""The router's process: doors towards clients, one socket towards all members, and a loop around the core."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from secrets import token_hex
from typing import Any, NamedTuple

import msgspec

from parallel_infer.config.route_schema import RouteConfig
from parallel_infer.errors import ConfigError
from parallel_infer.gateway.doors import PublicDoors
from parallel_infer.gateway.handover import HAS_STOPPED, NOTICE, Leaving
from parallel_infer.ipc.aside import Aside
from parallel_infer.ipc.channel import Watch, new_context
from parallel_infer.ipc.member_socket import CurveKeys, MemberSocket
from parallel_infer.keys.client import Key
from parallel_infer.limits import largest_frame
from parallel_infer.machine.descriptors import raise_limit
from parallel_infer.protocol import Reply
from parallel_infer.router.core import Core, Limits
from parallel_infer.router.door_processes import DoorProcesses
from parallel_infer.router.member_links import MemberLinks
from parallel_infer.router.membership import Patience
from parallel_infer.router.sources import Found, Sources

log = logging.getLogger(__name__)
_LOOKS = 16  # at most so many times everything is taken in before the clock is looked at
_PIXELS = 50_000_000  # of a picture that is read, if only to be refused: the default of a server
_ASIDE = 1.0  # seconds for name servers at the end
_decode = msgspec.msgpack.Decoder(Reply).decode


class Doors(NamedTuple):
    """What `PublicDoors` is told."""

    bind: tuple[str, ...]
    inside: str
    keys: str | None
    max_clients: int
    max_message: int


class Outcome(NamedTuple):
    """How a stop went: jobs that were under way and then answered, jobs that came since, jobs that were given up."""

    answered: int
    refused: int
    abandoned: int
    unread: int  # clients that had not taken their replies


class RouterProcess:
    """Carries messages between clients, members and the core."""

    def __init__(self, config: RouteConfig, inside: str = "") -> None:
        """Raises ConfigError for members and keys that cannot be used."""
        self._config = config
        self._sources = Sources((*config.member, *config.members))
        first = self._sources.look()
        key = _key(config.key)
        raise_limit()  # every client and every member takes a descriptor
        self._context = new_context()
        keys = None if key is None else CurveKeys(key.public, key.secret, key.server)
        self._socket = MemberSocket(self._context, keys)
        self._links = MemberLinks(self._socket, key)
        max_payload = int(config.max_payload_mb * 2**20)
        self.core = Core(
            self._links,
            Limits(max_payload, config.kept_jobs, config.kept_mb << 20, config.timeout_ms / 1000, config.most_lost),
            Patience(config.silence_ms / 1000, config.stuck_ms / 1000),
            token_hex(8),
        )
        self._links.ended = self.core.membership.ended
        self._watch = Watch()
        max_message = largest_frame(max_payload, _PIXELS)
        terms = Doors(tuple(config.bind), inside, config.keys, config.max_clients, max_message)
        self._doors = PublicDoors(self._context, terms, self._watch)
        self._others = DoorProcesses(config, inside, self._watch)
        self.core.queries.own_status = self._status
        self.core.queries.doors = self._others.states
        self._lists: Aside[Found] = Aside()
        self._problems: list[str] = []
        self._next_look = 0.0
        self._looking = False
        self._leaving: Leaving | None = None
        for source in (self._socket.socket, self._socket.monitor, *self._descriptors()):
            self._watch.add(source)
        self._listed(first)

    def _descriptors(self) -> tuple[int, ...]:
        return self._links.names.descriptor, self._links.reasons.descriptor, self._lists.descriptor

    def open(self) -> None:
        """Let clients in. Raises ConfigError where an address cannot be had."""
        before = os.umask(0o077)  # a socket's file is there from the moment it is bound
        try:
            self._addresses = self._doors.open()
        finally:
            os.umask(before)
        self._others.start()

    def run(self, signals: int, ending: Callable[[], bool], ready: Callable[[tuple[str, ...]], None]) -> None:
        """Route until `ending` says so, which is asked when the descriptor `signals` is readable, or a client does.

        `ready` is told the addresses once clients can come in at all of them. Raises ConfigError where they cannot.
        """
        self._watch.add(signals)
        is_ready = False
        while not self._has_left():
            timer = self._next_timer()
            there = self._watch.wait(timer - time.monotonic())
            self._take_in(there)
            now = time.monotonic()
            if timer <= now:  # what has come by now counts before what is late by now
                for _ in range(_LOOKS):
                    if not (there := self._watch.wait(0)):
                        break
                    self._take_in(there)
                    if signals in there:
                        break
            self.core.on_timer(now)
            self._others.on_timer(now)
            self._look_at_sources(now)
            if not is_ready and self._others.all_listen:
                is_ready = True
                ready((*self._addresses, *self._others.addresses))
            if self.core.queries.stop_asked or (signals in there and ending()):
                self._leave(now)
        self._watch.remove(signals)

    def _take_in(self, there: set[Any]) -> None:
        core, links = self.core, self._links
        if self._socket.socket in there:
            for route, header, payload in self._socket.drain():
                try:
                    reply = _decode(header)
                except msgspec.MsgspecError as error:
                    core.membership.ended(route, f"its replies cannot be read: {error}")
                else:
                    core.reply(route, reply, payload)
        if self._socket.monitor in there:
            links.take_ends()
        for aside in (links.names, links.reasons, self._lists):
            if aside.descriptor in there:
                aside.take()
        self._doors.take_in(there, core)
        self._others.take_in(there)

    # --- members -----------------------------------------------------------------------------------------------------

    def _look_at_sources(self, now: float) -> None:
        if not self._sources.change or self._looking or now < self._next_look:
            return
        self._looking = True
        self._lists.ask(self._sources.look, self._listed)

    def _listed(self, found: Found) -> None:
        self._looking = False
        self._next_look = time.monotonic() + self._config.look_ms / 1000
        for problem in found.problems:
            if problem not in self._problems:
                log.warning("%s", problem)
        self._problems = found.problems
        self.core.membership.list(found.members)

    def _status(self) -> dict[str, Any]:
        problems = {"problems": self._problems} if self._problems else {}
        return {**self._doors.status(), "cpu_seconds": round(time.process_time(), 3), **problems}

    # --- time and the end --------------------------------------------------------------------------------------------

    def _next_timer(self) -> float:
        timer = min([self.core.next_timer(), *self._others.next_timer()])
        if self._sources.change and not self._looking:
            timer = min(timer, self._next_look)
        return timer if self._leaving is None else min(timer, self._leaving.ends)

    def _leave(self, now: float) -> None:
        """Take nothing new; answer what there is."""
        if self._leaving is None:
            self._leaving = Leaving(now + self._config.drain_timeout_ms / 1000, len(self.core.jobs))
            self.core.closed = True
            self._doors.tell(NOTICE)

    def hasten(self) -> None:
        """Give up what has no reply yet."""
        if self._leaving is not None:
            self._leaving.hasten(time.monotonic())

    def _has_left(self) -> bool:
        leaving = self._leaving
        if leaving is None:
            return False
        pending = len(self.core.jobs)
        return not leaving.continues(time.monotonic(), pending, self._doors.has_strangers, self._doors.is_read)

    def close(self) -> Outcome:
        """Give up what has no reply yet, close the doors, and wait until each client has taken its replies."""
        leaving = self._leaving or Leaving(time.monotonic(), 0)
        for _ in range(_LOOKS):
            self._doors.take_rest(self.core)
        self._doors.settle()
        abandoned = self.core.give_up()
        self._others.end()
        self._doors.tell(HAS_STOPPED)
        handover = self._doors.close(leaving.until)
        self._links.end()
        self._lists.close(_ASIDE)
        handover.outlast(self._context.term, leaving.until)
        unread = handover.wait(leaving.until)
        self._doors.release()
        return Outcome(max(0, leaving.pending - abandoned), self.core.refused, abandoned, unread)

    def abort(self) -> None:
        """End what is left, where `close` was not reached."""
        self._others.end()


def _key(path: str | None) -> Key | None:
    try:
        return None if path is None else Key.of(path)
    except ValueError as error:
        raise ConfigError(f"key: {error}") from None
