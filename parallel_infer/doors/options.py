"""What the processes of doors are told at their start."""

from __future__ import annotations

from parallel_infer.limits import PREVIEW_SIDE
from parallel_infer.process.options import ChildOptions


class DoorOptions(ChildOptions, frozen=True, kw_only=True):
    """What every door is told. Sizes are in bytes."""

    gateway: str  # the gateway's address for this user alone
    bind: tuple[str, ...] = ()
    timeout: float  # seconds, of a job that names none
    max_payload: int
    keys: str | None = None  # folder of keys; None: no keys
    version: str = ""  # of the server


class HttpOptions(DoorOptions, frozen=True, kw_only=True):
    """The HTTP door's; `bind` are HOST:PORT."""

    memory: int  # of all bodies at a time
    aliases: tuple[str, ...] = ()  # OTHER=NAME
    page_viewers: int = 16  # pages that may be open at a time; 0: there is none
    page_picture: int = PREVIEW_SIDE  # pixels of the longer side of a live source's picture there
    hosts: tuple[str, ...] = ()  # further names by which clients reach the door
    connections: int = 1024  # at a time
    idle: float = 30.0  # seconds a connection may stay without a whole request head
    silence: float = 10.0  # seconds within which a byte of a body must come, or of an answer must be taken


class GrpcOptions(DoorOptions, frozen=True, kw_only=True):
    """The gRPC door's; `bind` are HOST:PORT."""

    memory: int  # of all messages at a time


class ZmqOptions(DoorOptions, frozen=True, kw_only=True):
    """A ZeroMQ door's; `bind` are tcp:// or ipc:// addresses. `model` is asked where a client names none."""

    networks: tuple[str, ...] = ()  # whose clients come in at tcp addresses; none: all
    model: str = ""
    uploads: int = 0  # models that may be uploaded at a time; 0: none
    upload_size: int = 0  # of each; 0 where none may be uploaded
