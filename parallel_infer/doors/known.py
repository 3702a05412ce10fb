"""All doors: which process each is, and what it is told where the configuration asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from parallel_infer.config.schema import ServerConfig
from parallel_infer.doors.options import DoorOptions, GrpcOptions, HttpOptions, ZmqOptions

_PROCESS = "parallel_infer.doors.process:"
Told = dict[str, Any]
"""The fields of `DoorOptions`, which every door is told."""


class Door(NamedTuple):
    """One door. `options` gives None where the configuration does not ask for it."""

    name: str
    entry: str  # "module:function", called with a Child and the encoded options
    options: Callable[[ServerConfig, Told], DoorOptions | None]


def _http(config: ServerConfig, told: Told) -> DoorOptions | None:
    if not config.http:
        return None
    return HttpOptions(
        **told | {"bind": tuple(config.http)},
        memory=config.http_memory_mb << 20,
        aliases=tuple(config.alias),
        page_viewers=config.page_viewers,
        page_picture=config.page_picture_pixels,
        hosts=tuple(config.http_hosts),
        connections=config.max_clients,
        idle=config.http_idle_ms / 1000,
        silence=config.http_silence_ms / 1000,
    )


def _grpc(config: ServerConfig, told: Told) -> DoorOptions | None:
    if not config.grpc:
        return None
    return GrpcOptions(**told | {"bind": tuple(config.grpc)}, memory=config.grpc_memory_mb << 20)


def _zmq(bind: list[str], config: ServerConfig, told: Told, **more: Any) -> ZmqOptions | None:
    if not bind:
        return None
    return ZmqOptions(**told | {"bind": tuple(bind)}, networks=tuple(config.keyless_from), **more)


def _frigate(config: ServerConfig, told: Told) -> DoorOptions | None:
    uploads = config.frigate_uploads
    size = config.frigate_upload_mb << 20 if uploads else 0
    return _zmq(config.frigate_bind, config, told, uploads=uploads, upload_size=size)


def _imagezmq(config: ServerConfig, told: Told) -> DoorOptions | None:
    return _zmq(config.imagezmq_bind, config, told, model=config.imagezmq_model)


DOORS: tuple[Door, ...] = (
    Door("http", f"{_PROCESS}http", _http),
    Door("grpc", f"{_PROCESS}grpc", _grpc),
    Door("frigate", f"{_PROCESS}frigate", _frigate),
    Door("imagezmq", f"{_PROCESS}imagezmq", _imagezmq),
)
