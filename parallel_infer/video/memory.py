"""Where the frames of one source lie: in a ring the server lent, or else in one of our own.

    capture process ── fills ──▶ slot ◀── reads ── the server (lent)
                                  │
                                  └── sent as bytes (own ring: another machine, or nothing left to lend)

A lent ring saves the copy over the socket. Slots are private to one source; a slot is used again only after its frame
was answered and handed on, or its capture process is dead.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import msgspec

from parallel_infer.client.connection import Connection
from parallel_infer.client.lent import Grant, LentRing, Slot
from parallel_infer.client.pending import Outcome, Pending
from parallel_infer.errors import ConfigError
from parallel_infer.protocol import GiveBack, Lend
from parallel_infer.shm.ring import Ring, byte_ring

_PAGE = 4096
_TIMEOUT = 5.0  # seconds the server has to lend


class Region:
    """One ring and whether the server reads it directly."""

    def __init__(self, grant: Grant, own: Ring | None) -> None:
        self.grant = grant
        self.own = own
        self.lent = own is None
        self.ring = LentRing(grant, time.monotonic())
        self.given_up = False


class Memory:
    """The ring of one source, and older ones that wait for their last slots."""

    def __init__(self, connection: Connection, slots: int, segment_name: Callable[[], str]) -> None:
        self._connection = connection
        self._slots = slots
        self._segment_name = segment_name
        self._region: Region | None = None
        self._retired: list[Region] = []
        self._asking: Pending | None = None
        self._renewing = False
        self.size = 0  # bytes per slot that are needed
        self.error = ""  # why there is no memory

    def need(self, size: int) -> None:
        """Have slots of at least `size` bytes, soon."""
        if self._region is not None and not self._region.given_up and self._region.ring.size >= size:
            return
        self.size = math.ceil(size / _PAGE) * _PAGE
        self._retire()
        if self._connection.lent is None:
            self._make_own()
        else:
            self._ask()

    def replace(self) -> None:
        """Have the next `need` make a fresh ring: somebody may be writing to this one for who knows how long."""
        self._retire()

    def claims(self) -> Iterator[tuple[Slot, Region]]:
        """Claims every slot that is free."""
        region = self._region
        while region is not None and (slot := region.ring.claim(region.ring.size)) is not None:
            yield slot, region

    def lost(self, region: Region) -> None:
        """The server does not know this ring any more; the frames in it are sent as bytes, a new one is asked for."""
        region.lent = False
        region.given_up = True
        if region is self._region:
            self.need(self.size)

    def upkeep(self, now: float) -> None:
        """Keep the ring from being taken back, replace one whose slots are all stuck, remove what is unused."""
        region = self._region
        if region is not None and region.lent and now > region.ring.renewed + region.grant.ttl / 3:
            self._renew(region, now)
        if region is not None and region.ring.blocked:
            region.given_up = True
            self.need(self.size)
        for old in [old for old in self._retired if old.ring.unused or old.ring.blocked]:
            self._retired.remove(old)
            self._remove(old)

    def close(self) -> None:
        """Give everything back. No capture process may be writing any more."""
        self._asking = None
        self._retire()
        for region in self._retired:
            self._remove(region)
        self._retired.clear()

    def _retire(self) -> None:
        if self._region is not None:
            self._retired.append(self._region)
            self._region = None

    def _remove(self, region: Region) -> None:
        if region.own is not None:
            region.own.close()
            region.own.unlink()
        elif region.lent:
            self._give_back(region.grant)

    def _give_back(self, grant: Grant) -> None:
        self._connection.post(Pending(GiveBack(id=self._connection.number(), ring=grant.ring), _TIMEOUT))

    def _ask(self) -> None:
        request = Lend(id=self._connection.number(), slots=self._slots, size=self.size)
        self._asking = Pending(request, _TIMEOUT, sink=self._lent)
        self._connection.post(self._asking)

    def _lent(self, pending: Pending, outcome: Outcome) -> None:
        grant = _granted(outcome)
        if pending is not self._asking:
            if grant is not None:
                self._give_back(grant)
            return
        self._asking = None
        if grant is not None:
            try:
                self._region = Region(grant, None)
            except (OSError, ValueError):  # another mount of /dev/shm: bytes work everywhere
                self._give_back(grant)
        if self._region is None:
            self._make_own()

    def _make_own(self) -> None:
        name = self._segment_name()
        try:
            ring = Ring.create(byte_ring(name, self._slots, self.size))
        except ConfigError as error:
            self.error = str(error)
            return
        self._region = Region(Grant(0, name, self._slots, self.size, math.inf), ring)

    def _renew(self, region: Region, now: float) -> None:
        if self._renewing:
            return

        def renewed(pending: Pending, outcome: Outcome) -> None:
            self._renewing = False
            if isinstance(outcome, msgspec.Raw):
                region.ring.renewed = now
            elif region.lent:
                self.lost(region)

        self._renewing = True
        request = Lend(
            id=self._connection.number(), slots=region.grant.slots, size=region.grant.size, ring=region.grant.ring
        )
        self._connection.post(Pending(request, _TIMEOUT, sink=renewed))


def _granted(outcome: Outcome) -> Grant | None:
    if not isinstance(outcome, msgspec.Raw):
        return None
    try:
        return msgspec.msgpack.decode(outcome, type=Grant)
    except msgspec.MsgspecError:
        return None
