"""The file that Ray Serve is given: two applications, the router and the nodes.

Two, because a change of an application's arguments replaces all of its deployments, and so does one of the policy by
which it is scaled. What may change without restarting anybody stands under `deployments`: how many nodes there are, and
the models (`user_config`). A fixed number is therefore a range as well, of that number alone.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from parallel_infer.config.fleet import Fleet

PATH = "parallel_infer.fleet.applications"
HEAD = "node:__internal_head__"  # the resource by which Ray knows its head
_A_LITTLE = 0.001  # of it: the router takes nothing from the head that others could want
_SCALING = "parallel_infer.fleet.scaling:pending_jobs"
_LEAVING = 5.0  # seconds beside the time that a server has for its last jobs
_ROUTER_STOP = 10.0  # seconds; a router that stops hands nothing over, its clients send again

Number = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]


class ActorOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a replica takes of its machine."""

    num_cpus: Number
    num_gpus: Number = 0.0
    resources: dict[str, Number] = {}


class Policy(Struct, frozen=True, forbid_unknown_fields=True):
    """Who decides how many replicas there are."""

    policy_function: str


class Scaling(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Between what bounds that is, and how quickly it changes. Times are in seconds."""

    min_replicas: Count
    max_replicas: Count
    target_ongoing_requests: Number
    upscale_delay_s: Number
    downscale_delay_s: Number
    metrics_interval_s: Number
    look_back_period_s: Number
    policy: Policy


class Deployment(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One deployment of an application. Times are in seconds."""

    name: str
    num_replicas: Count | UnsetType = UNSET
    autoscaling_config: Scaling | UnsetType = UNSET
    max_replicas_per_node: Count = 1
    ray_actor_options: ActorOptions
    user_config: dict[str, Any] | UnsetType = UNSET
    health_check_period_s: Number = 1.0
    health_check_timeout_s: Number = 10.0
    graceful_shutdown_wait_loop_s: Number = 0.1
    graceful_shutdown_timeout_s: Number


class Application(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One application. Without a route prefix it is no business of Serve's proxies."""

    name: Annotated[str, Meta(min_length=1)]
    route_prefix: None = None
    import_path: str
    args: dict[str, Any]
    deployments: list[Deployment]


class ServeFile(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What `serve deploy` takes."""

    proxy_location: str = "Disabled"  # no job travels through Serve
    applications: list[Application]


def serve_file(fleet: Fleet, origin: str) -> dict[str, Any]:
    """The file of a fleet, as plain maps. `origin` tells whose it is: HOST:FILE."""
    applications = [_nodes(fleet, origin)]
    if fleet.config.router == "head":
        applications.insert(0, _router(fleet))
    plain: dict[str, Any] = msgspec.to_builtins(ServeFile(applications=applications))
    return plain


def application_names(name: str) -> tuple[str, str]:
    """The applications of a fleet: its router and its nodes."""
    return f"{name}-router", f"{name}-nodes"


def check_structure(file: dict[str, Any]) -> None:
    """Raises msgspec.ValidationError where a file is not of the structure above."""
    msgspec.convert(file, ServeFile)


def _router(fleet: Fleet) -> Application:
    return Application(
        name=application_names(fleet.config.name)[0],
        import_path=f"{PATH}:router",
        args={"fleet": fleet.config.name, "route": _route(fleet)},
        deployments=[
            Deployment(
                name="router",
                num_replicas=1,
                ray_actor_options=ActorOptions(num_cpus=0, resources={HEAD: _A_LITTLE}),
                user_config={"fleet": fleet.config.name},  # else the replica would not be told to start
                graceful_shutdown_timeout_s=_ROUTER_STOP,
            )
        ],
    )


def _nodes(fleet: Fleet, origin: str) -> Application:
    config = fleet.config
    drain = fleet.server.get("drain_timeout_ms", 10_000.0) / 1000
    args = {"fleet": config.name, "server": fleet.server, "member_port": config.member_port}
    if config.router == "every":
        args["route"] = _route(fleet)
    return Application(
        name=application_names(config.name)[1],
        import_path=f"{PATH}:nodes",
        args=args,
        deployments=[
            Deployment(
                name="node",
                autoscaling_config=_scaling(fleet),
                ray_actor_options=ActorOptions(
                    num_cpus=config.cpus, num_gpus=config.gpus, resources=dict(config.resources)
                ),
                user_config={"models": fleet.models, "origin": origin},
                graceful_shutdown_timeout_s=drain + _LEAVING,
            )
        ],
    )


def _scaling(fleet: Fleet) -> Scaling:
    config = fleet.config
    return Scaling(
        min_replicas=fleet.least,
        max_replicas=fleet.most,
        target_ongoing_requests=config.target_pending,
        upscale_delay_s=config.scale_up_ms / 1000,
        downscale_delay_s=config.scale_down_ms / 1000,
        metrics_interval_s=1.0,  # or what the environment of Ray says, where a later Ray knows it no more
        look_back_period_s=5.0,
        policy=Policy(_SCALING),
    )


def _route(fleet: Fleet) -> dict[str, Any]:
    """What a router is told."""
    config, server = fleet.config, fleet.server
    told = {name: getattr(config, name) for name in ("router_host", "port", "silence_ms", "most_lost")}
    told |= {name: value for name in ("key", "http", "grpc") if (value := getattr(config, name))}
    return told | {name: server[name] for name in ("keys", "insecure") if name in server}
