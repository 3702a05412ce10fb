"""What a fleet is told: many machines with one server each, placed by Ray. The table `[fleet]` of the TOML file.

Environment variables are `PARALLEL_INFER_FLEET_` and the name in upper case. `fleet` reads them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from parallel_infer.config.model_schema import says

MOST_NODES = 1000


class FleetConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[fleet]`."""

    name: Annotated[
        str,
        says("What the fleet is called on its Ray cluster: 1 to 48 letters, digits, dots and dashes."),
    ] = "main"
    nodes: Annotated[
        int | str,
        says(
            "Machines with a server each: a number, or `1..8`: then as many as `target_pending` asks for. "
            f"At most {MOST_NODES}."
        ),
    ] = 1
    target_pending: Annotated[
        Annotated[float, Meta(gt=0, le=1_000_000)],
        says("With `nodes` as a range: jobs under way that each server should have."),
    ] = 24.0
    scale_up_ms: Annotated[
        Annotated[float, Meta(ge=0, le=3_600_000)],
        says("Milliseconds for which more servers must be asked for before they are started."),
    ] = 2000.0
    scale_down_ms: Annotated[
        Annotated[float, Meta(ge=0, le=3_600_000)],
        says("Milliseconds for which fewer servers must do before any is stopped."),
    ] = 60_000.0
    cpus: Annotated[
        Annotated[float, Meta(ge=0, le=4096)],
        says("Processors that Ray keeps for each server (num_cpus)."),
    ] = 1.0
    gpus: Annotated[
        Annotated[float, Meta(ge=0, le=64)],
        says("GPUs that Ray keeps for each server (num_gpus); it sees no other."),
    ] = 0.0
    resources: Annotated[
        dict[str, float],
        says(
            "Resources of your own that each server takes, for example { vision = 1 } on machines that were started "
            "with `ray start --resources '{\"vision\": 1}'`."
        ),
    ] = {}
    router: Annotated[
        Literal["head", "every", "none"],
        says(
            "Where `parallel-infer route` runs: on Ray's head; on every machine with a server, for clients that are "
            "told several addresses; or nowhere."
        ),
    ] = "head"
    router_host: Annotated[
        Annotated[str, Meta(min_length=1, max_length=255)],
        says("Address at which a router listens. auto: that of its machine in Ray."),
    ] = "auto"
    key: Annotated[
        str | None,
        says("Key file of the router, on its machine, with which its servers let it in: needed with `keys`."),
    ] = None
    port: Annotated[
        Annotated[int, Meta(ge=1, le=65535)],
        says("Port of the router: where clients connect."),
    ] = 5555
    http: Annotated[
        list[str],
        says("Addresses, HOST:PORT, of a router's HTTP door. Settings of the file's top are those of each server."),
    ] = []
    grpc: Annotated[list[str], says("Addresses, HOST:PORT, of a router's gRPC door.")] = []
    member_port: Annotated[
        Annotated[int, Meta(ge=0, le=65535)],
        says("Port of every server, which routers connect to. 0: any that is free."),
    ] = 0
    silence_ms: Annotated[
        Annotated[float, Meta(ge=100, le=3_600_000)],
        says("A server that says nothing to its router for so many milliseconds is lost; its jobs go to others."),
    ] = 1000.0
    most_lost: Annotated[
        Annotated[int, Meta(ge=1, le=1000)],
        says("A job that lost so many servers is answered with POISON."),
    ] = 3
