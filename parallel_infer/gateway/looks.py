"""Doors that wait for the next answered frame of a live source, to show it to people.

Only who asks is given a copy of a frame, one for each request; while nobody does, a frame costs one look into an empty
dictionary. A client that follows objects knows more of a frame than the server, and draws it itself: while it does,
doors are given its picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from parallel_infer.errors import BadInput
from parallel_infer.gateway.pending import PendingJob, Requester
from parallel_infer.ipc.messages import AnswerFormat, PayloadKind, SlotRef
from parallel_infer.limits import PREVIEW_SIDE, preview_bytes

_DRAWS_ON = 10.0  # seconds after its last picture that a client is expected to send another
_KINDS = {PayloadKind.PICTURE: "picture", PayloadKind.FRAME: "frame", PayloadKind.TENSORS: "tensors"}


class Look(msgspec.Struct, frozen=True):
    """One door that waits until `until`."""

    requester: Requester
    until: float


class Looks:
    """Who waits for a frame of which source."""

    def __init__(
        self, read: Callable[[SlotRef], memoryview | None], clock: Callable[[], float], pixels: int = PREVIEW_SIDE
    ) -> None:
        """`read` gives the payload in a slot, where it lies; `pixels` is the longer side of what clients draw."""
        self._pixels = pixels
        self._read = read
        self._clock = clock
        self._watched: dict[str, float] = {}  # source -> until when a door may be taken to go on looking
        self._drawn: dict[str, float] = {}  # source -> until when its client may be taken to go on drawing
        self._waiting: dict[str, dict[bytes, Look]] = {}  # source, as its client calls it -> door -> look

    def add(self, source: str, requester: Requester, until: float) -> None:
        """Wait for a frame of `source`. A door waits once for each: what it asked before has an empty result."""
        before = self._waiting.setdefault(source, {}).pop(requester.client, None)
        if before is not None:
            before.requester.result(None)
        self._waiting[source][requester.client] = Look(requester, until)
        self._watched[source] = until

    def waits_for(self, source: str) -> bool:
        """Whether a door waits for a frame of `source`."""
        return source in self._waiting

    def is_watched(self, source: str) -> bool:
        """Whether a door looks at `source` now and then."""
        return self._watched.get(source, 0.0) > self._clock()

    def wanted(self, source: str) -> dict[str, Any]:
        """What the client of a source is told: whether it shall draw its last frame, and how large at most."""
        return {"watched": True, "pixels": self._pixels} if self.is_watched(source) else {}

    def drawn(self, source: str, picture: memoryview) -> None:
        """The client of a source that is watched has drawn its last frame, as a JPEG. Raises BadInput."""
        if len(picture) > (most := preview_bytes(self._pixels)):
            text = f"the picture of a report has {len(picture)} bytes; up to {most} are taken"
            raise BadInput(f"{text}: 16/9 for each pixel of a square (option page_picture_pixels)")
        if self.is_watched(source):
            self._drawn[source] = self._clock() + _DRAWS_ON
            nothing: dict[str, Any] = {"tensors": (), "options": {}, "format": "arrays", "answer": None, "arrays": b""}
            self._give(source, {"kind": "drawn", "payload": picture, **nothing})

    def answered(self, job: PendingJob, body: bytes, arrays: Any) -> None:
        """A frame has its answer, and its slot still holds it."""
        if not self.waits_for(job.source) or self._drawn.get(job.source, 0.0) > self._clock():
            return
        payload = self._read(job.admit.ref)
        if payload is None:
            return  # the memory that its client was lent has been taken back
        found = {
            "kind": _KINDS[job.admit.kind],
            "tensors": job.admit.tensors,
            "options": msgspec.Raw(job.admit.options),
            "payload": payload,
            "format": "objects" if job.admit.format == AnswerFormat.OBJECTS else "arrays",
            "answer": msgspec.Raw(body),
            "arrays": memoryview(arrays),
        }
        self._give(job.source, found)

    def _give(self, source: str, found: dict[str, Any]) -> None:
        for look in self._waiting.pop(source, {}).values():
            look.requester.result(found)

    def timers(self) -> Iterator[float]:
        """When `expire` has something to do."""
        yield from (look.until for looks in self._waiting.values() for look in looks.values())

    def expire(self, now: float) -> None:
        """Give those that waited long enough an empty result."""
        for source, looks in list(self._waiting.items()):
            for door, look in list(looks.items()):
                if look.until <= now:
                    looks.pop(door).requester.result(None)
            if not looks:
                del self._waiting[source]
        for known in (self._watched, self._drawn):
            for source in [source for source, until in known.items() if until <= now]:
                del known[source]
