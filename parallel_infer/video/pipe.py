"""What a capture process and its parent say to each other, as MessagePack over a socket pair.

Pixels never travel here: the parent hands out places in shared memory, the capture process fills one and says so.

    parent                     capture process
      Order            ──▶       opens the source
             ◀──  Opened
             ◀──  Needs(size)    the first frame, or a larger one: all places given before are void
      Place, Place ... ──▶
             ◀──  Captured       one place is filled and is the parent's again
             ◀──  DecodeError        a frame that could not be decoded
             ◀──  Ended          nothing more will come, and why
"""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct


class Order(Struct, frozen=True, array_like=True, tag=True):
    """What to capture and how."""

    kind: str  # a SourceKind's value
    place: bytes  # its address, or its path, which need not be text
    waits: bool  # every frame: wait for a place; otherwise frames without a place are dropped
    fps: float | None
    opening: float  # seconds
    silence: float  # seconds

    @property
    def address(self) -> str:
        """`place` as text; bytes that are none are kept as in paths."""
        return self.place.decode("utf-8", "surrogateescape")


class Place(Struct, frozen=True, array_like=True, tag=True):
    """Slot `index` of a byte ring, to be filled with one frame."""

    number: int  # of this place, never used again
    segment: str
    slots: int
    size: int  # bytes per slot
    index: int


class Opened(Struct, frozen=True, array_like=True, tag=True):
    """The source is open."""

    fps: float  # 0: unknown
    frames: int  # 0: unknown, or without end


class Needs(Struct, frozen=True, array_like=True, tag=True):
    """Places of at least `size` bytes are needed."""

    size: int


class Captured(Struct, frozen=True, array_like=True, tag=True):
    """A frame [height, width, 3] lies in a place."""

    place: int
    frame: int  # number of the frame in its source
    turn: int  # the same without the frames that `fps` leaves out; a gap is frames that were dropped
    time: float  # time.monotonic() of the capture
    position: float | None  # seconds from the start of a recording
    height: int
    width: int


class DecodeError(Struct, frozen=True, array_like=True, tag=True):
    """A frame could not be decoded."""

    frame: int
    turn: int
    time: float
    position: float | None
    message: str


class Ended(Struct, frozen=True, array_like=True, tag=True):
    """Nothing more will come. `well` says whether that was all there is."""

    message: str
    frames: int  # that were seen
    turns: int  # the same without those that `fps` leaves out
    well: bool


Word = Opened | Needs | Captured | DecodeError | Ended
Told = Order | Place
T = TypeVar("T")


class Pipe(Generic[T]):
    """One end of the conversation; `kind` is the type of what the other end says."""

    def __init__(self, connection: Connection, kind: type[T]) -> None:
        self.connection = connection
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(kind).decode

    def send(self, word: Struct) -> None:
        """Raises OSError when the other end is gone."""
        self.connection.send_bytes(self._encode(word))

    def receive(self) -> T:
        """The next word; waits for it. Raises EOFError or OSError when the other end is gone."""
        return self._decode(self.connection.recv_bytes())

    def ready(self, timeout: float | None = 0.0) -> bool:
        """Whether there is something to receive (or the other end is gone) within `timeout` seconds."""
        return self.connection.poll(timeout)

    def close(self) -> None:
        self.connection.close()
