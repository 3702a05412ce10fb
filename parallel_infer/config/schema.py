"""What a server is told: one frozen structure, with every limit, its bounds, its default and what it means.

Names are those of the TOML file, of the command line (with dashes) and of the environment (`PARALLEL_INFER_` and upper
case). `sources` reads those places; nothing else in the project knows where a value came from. A setting is added by
one field here or in `engine_schema`: `fields`, --help, error texts and docs/configuration.md are made from it. `OPTION`
puts it on the command line as well.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from parallel_infer.config.engine_schema import EngineConfig
from parallel_infer.config.model_schema import OPTION, ModelConfig, says
from parallel_infer.limits import PREVIEW_SIDE

__all__ = ["OPTION", "ModelConfig", "ServerConfig"]


class ServerConfig(EngineConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a server is told. The top level of the TOML file."""

    # who may connect
    keys: Annotated[
        str | None,
        says(
            "Folder of CURVE keys, made with `parallel-infer keys`. With it, tcp connections are encrypted "
            "and only listed clients may use them."
        ),
        OPTION,
    ] = None
    insecure: Annotated[bool, says("Allow tcp addresses that other machines can reach without keys."), OPTION] = False
    confine: Annotated[
        Literal["on", "off"],
        says(
            "Keep decode workers from files, processes, the network and most system calls, where the kernel "
            "can (Landlock and seccomp). off is for debuggers and profilers."
        ),
        OPTION,
    ] = "on"
    # what is done about faults, and told
    restart_budget: Annotated[
        int,
        says(
            "Restarts of one worker within a minute; after one more it is tried again every half minute, and "
            "a model without workers is unavailable meanwhile.",
            ge=0,
            le=1_000_000,
        ),
    ] = 10
    log_format: Annotated[
        Literal["text", "json"], says("text for people, json for log collectors: one object per line."), OPTION
    ] = "text"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], says("Least important messages to log."), OPTION
    ] = "info"
    metrics_host: Annotated[
        Annotated[str, Meta(min_length=1, max_length=255)],
        says(
            "Address of this machine on which metrics are served. They tell the names of models and sources "
            "to whoever can reach it."
        ),
        OPTION,
    ] = "127.0.0.1"
    metrics_port: Annotated[
        int, says("Port for Prometheus metrics, at http://127.0.0.1:PORT/metrics. 0: none.", ge=0, le=65535), OPTION
    ] = 0
    # doors for clients of other protocols
    http: Annotated[
        list[str],
        says(
            "Addresses, HOST:PORT, of the HTTP door: Open Inference Protocol v2, Roboflow's API, plain POSTs, "
            "health and metrics."
        ),
        OPTION,
    ] = []
    grpc: Annotated[
        list[str],
        says("Addresses, HOST:PORT, of the gRPC door: inference.GRPCInferenceService and grpc.health.v1.Health."),
        OPTION,
    ] = []
    grpc_memory_mb: Annotated[
        int, says("Most megabytes of messages in the gRPC door, all together.", ge=1, le=1_048_576), OPTION
    ] = 1024
    frigate_bind: Annotated[
        list[str], says("Addresses, tcp://IP:PORT or ipc://PATH, for Frigate's ZeroMQ detector."), OPTION
    ] = []
    frigate_uploads: Annotated[
        int,
        says(
            "Models that Frigate may upload where it asks for one that is not served. 0: none, since whoever reaches "
            "frigate_bind could have its own models run.",
            ge=0,
            le=64,
        ),
        OPTION,
    ] = 0
    frigate_upload_mb: Annotated[
        int, says("Most megabytes of a model that Frigate uploads.", ge=1, le=2048), OPTION
    ] = 256
    imagezmq_bind: Annotated[
        list[str], says("Addresses, tcp://IP:PORT or ipc://PATH, for senders of imagezmq."), OPTION
    ] = []
    imagezmq_model: Annotated[
        str,
        says(
            "The model that imagezmq's frames go to. None given: the first detector, else the first model that "
            "takes pictures."
        ),
        OPTION,
    ] = ""
    keyless_from: Annotated[
        list[str],
        says(
            "Addresses or networks, 10.0.0.7 or 192.168.1.0/24, whose clients come in at frigate_bind and "
            "imagezmq_bind, and no others. They have no way to show a key: beside keys this says who needs none."
        ),
        OPTION,
    ] = []
    alias: Annotated[
        list[str],
        says(
            "Further names of models, OTHER=NAME, for clients of Roboflow's API that ask for projects: coco/3=detector."
        ),
        OPTION,
    ] = []
    http_memory_mb: Annotated[
        int, says("Most megabytes of request bodies in the HTTP door, all together.", ge=1, le=1_048_576), OPTION
    ] = 512
    page_viewers: Annotated[
        int, says("Browsers that may watch the HTTP door's page at a time. 0: there is no page.", ge=0, le=1024), OPTION
    ] = 16
    page_picture_pixels: Annotated[
        int, says("Pixels of the longer side of a live source's picture on the page, at most.", ge=64, le=2048), OPTION
    ] = PREVIEW_SIDE
    http_hosts: Annotated[
        list[str],
        says(
            "Further names of hosts by which clients reach the HTTP door, such as that of a proxy. Without keys a "
            "request for any other host is refused, because web pages can make a browser send it."
        ),
    ] = []
    http_idle_ms: Annotated[
        float,
        says("Milliseconds a connection of the HTTP door may stay without a whole request head.", ge=100, le=3_600_000),
    ] = 30_000
    http_silence_ms: Annotated[
        float,
        says(
            "Milliseconds within which a byte of a request's body must come to the HTTP door, and a byte of an answer "
            "must be taken.",
            ge=100,
            le=3_600_000,
        ),
    ] = 10_000
