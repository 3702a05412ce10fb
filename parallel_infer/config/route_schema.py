"""What a router is told, field by field, as `schema` has it for a server."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from parallel_infer.config.model_schema import says


class RouteConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a router is told. The top level of its TOML file."""

    bind: Annotated[
        list[str],
        says("Addresses to listen on: tcp://IP:PORT, or ipc://PATH for clients on this machine."),
    ] = msgspec.field(default_factory=lambda: ["tcp://127.0.0.1:5555"])
    member: Annotated[
        list[str],
        says(
            "Servers to spread jobs over: tcp://HOST:PORT, ipc://PATH, NAME=ADDRESS for one with a name of its own, or "
            "what `members` takes."
        ),
    ] = []
    members: Annotated[
        list[str],
        says(
            "Where to look for servers again and again: dns:NAME:PORT is every address of that name, file:PATH a file "
            "with one member a line."
        ),
    ] = []
    key: Annotated[
        str | None,
        says(
            "Key file of this router, where its members ask for one. They share one folder of keys, so one is enough."
        ),
    ] = None
    look_ms: Annotated[
        Annotated[float, Meta(ge=50, le=3_600_000)],
        says("Milliseconds between two looks at the names and files of `members`."),
    ] = 1000.0
    silence_ms: Annotated[
        Annotated[float, Meta(ge=100, le=3_600_000)],
        says("A member that says nothing for this many milliseconds is lost, and its jobs go to others."),
    ] = 1000.0
    silence_limit_ms: Annotated[
        Annotated[float, Meta(ge=1000, le=3_600_000)],
        says("A door of this router is replaced after this many milliseconds without a sign of life."),
    ] = 10_000.0
    stuck_ms: Annotated[
        Annotated[float, Meta(ge=0, le=3_600_000)],
        says(
            "A member that answers and yet finishes none of its jobs for this many milliseconds is passed over, and "
            "its jobs are given to others as well. 0: never."
        ),
    ] = 10_000.0
    most_lost: Annotated[
        Annotated[int, Meta(ge=1, le=1000)],
        says("A job that lost this many members is answered with POISON. 1: nothing is ever sent again."),
    ] = 3
    kept_jobs: Annotated[
        Annotated[int, Meta(ge=1, le=10_000_000)],
        says("Most jobs without a reply; further ones are refused with RESOURCE_UNAVAILABLE."),
    ] = 10_000
    kept_mb: Annotated[
        Annotated[int, Meta(ge=1, le=1_048_576)],
        says("Most megabytes of jobs without a reply, which are kept to be sent again."),
    ] = 256
    timeout_ms: Annotated[
        Annotated[float, Meta(gt=0, le=3_600_000)],
        says("Milliseconds a request may take that names no timeout of its own."),
    ] = 30_000.0
    drain_timeout_ms: Annotated[
        Annotated[float, Meta(ge=0, le=3_600_000)],
        says("Milliseconds that jobs get to finish when the router is told to stop."),
    ] = 10_000.0
    max_payload_mb: Annotated[
        Annotated[float, Meta(gt=0, le=4096)],
        says("Largest payload of one request, in megabytes. Members have limits of their own."),
    ] = 32.0
    max_clients: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)],
        says("Most clients connected at the same time; each takes a file descriptor (`ulimit -n`)."),
    ] = 1024
    keys: Annotated[
        str | None,
        says(
            "Folder of CURVE keys, made with `parallel-infer keys`. With it, tcp connections of clients are encrypted "
            "and only listed clients may use them."
        ),
    ] = None
    insecure: Annotated[bool, says("Allow tcp addresses that other machines can reach without keys.")] = False
    http: Annotated[
        list[str],
        says("Addresses, HOST:PORT, of the HTTP door, as of a server; jobs that come there are spread as well."),
    ] = []
    grpc: Annotated[
        list[str],
        says("Addresses, HOST:PORT, of the gRPC door."),
    ] = []
    http_hosts: Annotated[
        list[str],
        says(
            "Further names of hosts by which clients reach the HTTP door, such as that of a Service. Without keys a "
            "request for any other host is refused, because web pages can make a browser send it."
        ),
    ] = []
    metrics_host: Annotated[
        Annotated[str, Meta(min_length=1, max_length=255)],
        says("Address of this machine on which metrics are served."),
    ] = "127.0.0.1"
    metrics_port: Annotated[
        Annotated[int, Meta(ge=0, le=65535)],
        says("Port for Prometheus metrics, at http://127.0.0.1:PORT/metrics. 0: none."),
    ] = 0
    log_format: Annotated[
        Literal["text", "json"],
        says("text for people, json for log collectors: one object per line."),
    ] = "text"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        says("Least important messages to log."),
    ] = "info"
