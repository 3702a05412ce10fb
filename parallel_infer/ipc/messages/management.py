"""What clients have done to the server as a whole: the gateway passes it on to the supervisor, which answers."""

from __future__ import annotations

from msgspec import Raw, Struct


class LoadModel(Struct, frozen=True, array_like=True, tag=62):
    """From the gateway: a client wants a model file loaded. `options` is the map that the client gave."""

    query: int
    name: str
    path: str
    options: Raw


class LoadChain(Struct, frozen=True, array_like=True, tag=73):
    """From the gateway: a client wants a chain served."""

    query: int
    name: str
    steps: str


class ReloadModel(Struct, frozen=True, array_like=True, tag=79):
    """From the gateway: a client wants the file of a model looked at again, or a chain of the configuration served."""

    query: int
    name: str


class UnloadModel(Struct, frozen=True, array_like=True, tag=68):
    """From the gateway: a client wants a model or a chain served no more."""

    query: int
    name: str


class StopServer(Struct, frozen=True, array_like=True, tag=69):
    """From the gateway: a client wants the server to stop."""

    query: int


class Managed(Struct, frozen=True, array_like=True, tag=28):
    """From the supervisor: how a management request ended; an empty code is success."""

    query: int
    code: str
    text: str
    result: Raw  # a map, handed through as it is
