"""What a server is told: one frozen structure, with every limit, its bounds, its default and what it means.

Names are those of the TOML file, of the command line (with dashes) and of the environment (`PARALLEL_INFER_` and upper
case). `sources` reads those places; nothing else in the project knows where a value came from. A setting is added by
one field here: `fields`, --help, error texts and docs/configuration.md are made from it. `OPTION` puts it on the
command line as well.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from parallel_infer.config.model_schema import Count, Milliseconds, ModelConfig, Precision, says
from parallel_infer.execution_providers import ProviderName

__all__ = ["OPTION", "ModelConfig", "ServerConfig"]

OPTION = Meta(extra={"option": True})
"""Marks a field that is an option of the command line; every other one is set in the file or the environment."""


class ServerConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a server is told. The top level of the TOML file."""

    models: Annotated[
        dict[str, ModelConfig],
        says(
            "The models to serve: one table `[models.NAME]` each. None at all: the shipped detector, "
            "classifier and segmenter."
        ),
    ] = {}
    model_repository: Annotated[
        str | None,
        says(
            "Folder whose models are all served: NAME.onnx, and NAME/VERSION/model.onnx as in Triton's layout. A table "
            "`[models.NAME]` may set the options of one of them, and needs no path then."
        ),
        OPTION,
    ] = None
    bind: Annotated[
        list[str],
        says("Addresses to listen on: tcp://IP:PORT, or ipc://PATH for clients on this machine."),
        OPTION,
    ] = msgspec.field(default_factory=lambda: ["tcp://127.0.0.1:5555"])
    # defaults of every model
    provider: Annotated[
        ProviderName,
        says(
            "What runs the models. auto: cuda where an NVIDIA GPU answers, else openvino on processors with "
            "bfloat16, else cpu. tensorrt must be asked for."
        ),
        OPTION,
    ] = "auto"
    precision: Annotated[
        Precision,
        says(
            "Arithmetic of the models. auto: bf16 with openvino on processors that have it, else fp32. fp16 "
            "needs tensorrt."
        ),
        OPTION,
    ] = "auto"
    max_batch_size: Annotated[
        Count,
        says(
            "Most pictures that one run of a model takes. A larger batch gives a GPU more throughput and each "
            "picture more latency."
        ),
        OPTION,
    ] = 8
    max_queue_delay_ms: Annotated[
        Milliseconds,
        says(
            "Longest time in milliseconds that a ready picture waits for others to fill its batch. It only "
            "waits while others are known to be coming. While all cores are busy it may wait for one as long as "
            "its batch would run; 0 waits for nothing."
        ),
        OPTION,
    ] = 2.0
    queue_size: Annotated[
        Count,
        says("Most jobs of one model that wait for decoding; further ones are refused with RESOURCE_UNAVAILABLE."),
        OPTION,
    ] = 256
    instances: Annotated[
        Annotated[int, Meta(ge=0, le=64)],
        says("Infer workers per model: copies of the model that run side by side. 0: chosen for the machine."),
        OPTION,
    ] = 0
    threads: Annotated[
        Annotated[int, Meta(ge=0, le=256)],
        says("Threads of ONNX Runtime per instance. 0: chosen for the machine."),
        OPTION,
    ] = 0
    alone_threads: Annotated[
        Annotated[int, Meta(ge=0, le=256)],
        says(
            "Threads for a picture that has the machine to itself; more than `threads` takes a second session "
            "per instance. 0: chosen for the machine, and as many as `threads` where those are given."
        ),
    ] = 0
    decode: Annotated[
        Literal["exact", "fast"],
        says(
            "exact decodes every picture in full; fast lets JPEG pictures be decoded at reduced size where "
            "the model's input is much smaller."
        ),
        OPTION,
    ] = "exact"
    uint8_rows: Annotated[
        bool,
        says(
            "Keep model inputs as uint8 and normalise inside the graph where the graph allows it: a quarter "
            "of the shared memory."
        ),
    ] = True
    max_output_mb: Annotated[
        Annotated[float, Meta(gt=0, le=4096)],
        says("Most megabytes of outputs per job, for models whose graph does not say how large they get."),
    ] = 16.0
    # of ONNX Runtime sessions
    inter_threads: Annotated[
        Annotated[int, Meta(ge=1, le=256)],
        says("Operators of one run that ONNX Runtime computes side by side."),
    ] = 1
    streams: Annotated[
        Annotated[int, Meta(ge=1, le=64)],
        says("Runs that OpenVINO computes at once, per instance."),
    ] = 1
    optimization: Annotated[
        Literal["disabled", "basic", "extended", "all"],
        says("How far ONNX Runtime rewrites a graph when it loads it."),
    ] = "all"
    cpu_arena: Annotated[bool, says("Let ONNX Runtime keep freed memory for its next run.")] = True
    memory_pattern: Annotated[
        bool,
        says("Let ONNX Runtime plan the memory of a run ahead, for runs of the same shape."),
    ] = True
    device: Annotated[
        Annotated[int, Meta(ge=0, le=255)],
        says("Number of the GPU, for cuda and tensorrt."),
    ] = 0
    gpu_mem_limit_mb: Annotated[
        Annotated[int, Meta(ge=0, le=1_048_576)],
        says("Most megabytes of GPU memory per instance, for cuda and tensorrt. 0: no limit."),
    ] = 0
    arena_strategy: Annotated[
        Literal["power-of-two", "as-requested"],
        says("How GPU memory grows: to the next power of two, or by what is requested."),
    ] = "power-of-two"
    page_locked: Annotated[
        bool,
        says("Page-lock the rows and outputs of models on cuda, so that the GPU reads and writes them by itself."),
    ] = True
    cuda_graphs: Annotated[
        bool,
        says(
            "Record a run of each batch size as a CUDA graph and repeat it. For models that run on the GPU throughout; "
            "others, and all with false, are always computed in their largest batch, which is slower."
        ),
    ] = True
    cache: Annotated[
        str | None,
        says("Folder for compiled models (openvino) and engines (tensorrt), so that the next start is quick."),
    ] = None
    model_copies: Annotated[
        str | None,
        says(
            "Folder for the server's own copies of the model files it serves, which it removes when it stops. "
            "None given: the first of the folder for temporary files, /var/tmp and the run's own folder that "
            "has room."
        ),
    ] = None
    profile: Annotated[
        str | None,
        says("Folder to write ONNX Runtime's profile of every instance to, when it stops."),
    ] = None
    # processes
    decode_workers: Annotated[
        Annotated[int, Meta(ge=0, le=256)],
        says("Processes that decode and resize pictures. 0: chosen for the machine."),
        OPTION,
    ] = 0
    postprocess_workers: Annotated[
        Annotated[int, Meta(ge=0, le=256)],
        says("Processes that turn model outputs into answers. 0: chosen for the machine."),
        OPTION,
    ] = 0
    # time
    timeout_ms: Annotated[
        Annotated[float, Meta(gt=0, le=3_600_000)],
        says(
            "Milliseconds a request may take that names no timeout of its own; then it is answered with "
            "DEADLINE_EXCEEDED."
        ),
        OPTION,
    ] = 30_000.0
    silence_limit_ms: Annotated[
        Annotated[float, Meta(ge=1000, le=3_600_000)],
        says("The dispatcher, the gateway or a door is replaced after this many milliseconds without a sign of life."),
    ] = 10_000.0
    stage_limit_ms: Annotated[
        Annotated[float, Meta(ge=100, le=3_600_000)],
        says("A worker that works on one job or batch for longer than this many milliseconds is stopped and replaced."),
    ] = 30_000.0
    start_timeout_ms: Annotated[
        Annotated[float, Meta(ge=1000, le=3_600_000)],
        says("Milliseconds the server may take to start, model loading included."),
    ] = 120_000.0
    drain_timeout_ms: Annotated[
        Annotated[float, Meta(ge=0, le=3_600_000)],
        says("Milliseconds that admitted jobs get to finish when the server is told to stop."),
    ] = 10_000.0
    # memory and limits
    shared_memory_mb: Annotated[
        Annotated[int, Meta(ge=8, le=1_048_576)],
        says("Megabytes of shared memory for the payloads of waiting requests."),
        OPTION,
    ] = 256
    fit_shared_memory: Annotated[
        bool,
        says(
            "Where /dev/shm is too small, go on with less: a smaller max_batch_size, shared_memory_mb, instances and "
            "at last max_payload_mb. The log says which. Without it a server that does not fit refuses to start."
        ),
        OPTION,
    ] = False
    lent_memory_mb: Annotated[
        Annotated[int, Meta(ge=0, le=1_048_576)],
        says("Most megabytes of shared memory lent to clients on this machine, all together. 0: none is lent."),
    ] = 256
    response_cache_mb: Annotated[
        Annotated[int, Meta(ge=0, le=1_048_576)],
        says(
            "Megabytes of answers that the gateway keeps, to answer the same payload with the same options from "
            "the same model again without computing. 0: none are kept."
        ),
        OPTION,
    ] = 0
    max_payload_mb: Annotated[
        Annotated[float, Meta(gt=0, le=4096)],
        says("Largest payload of one request, in megabytes, whichever way it comes."),
        OPTION,
    ] = 32.0
    max_pixels: Annotated[
        Annotated[int, Meta(ge=1, le=2**40)],
        says("Pictures of more pixels are refused before they are decoded."),
        OPTION,
    ] = 50_000_000
    formats: Annotated[
        list[Literal["jpeg", "png", "webp", "bmp", "tiff", "gif", "avif", "jp2"]],
        says("Picture formats to accept, told by their first bytes; docs/pictures.md says what of each is read."),
        OPTION,
    ] = msgspec.field(default_factory=lambda: ["jpeg", "png", "webp"])
    max_clients: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)],
        says("Most clients connected at the same time; each takes a file descriptor (`ulimit -n`)."),
    ] = 1024
    # who may connect
    keys: Annotated[
        str | None,
        says(
            "Folder of CURVE keys, made with `parallel-infer keys`. With it, tcp connections are encrypted "
            "and only listed clients may use them."
        ),
        OPTION,
    ] = None
    insecure: Annotated[
        bool,
        says("Allow tcp addresses that other machines can reach without keys."),
        OPTION,
    ] = False
    confine: Annotated[
        Literal["on", "off"],
        says(
            "Keep decode workers from files, processes, the network and most system calls, where the kernel "
            "can (Landlock and seccomp). off is for debuggers and profilers."
        ),
        OPTION,
    ] = "on"
    restart_budget: Annotated[
        Annotated[int, Meta(ge=0, le=1_000_000)],
        says(
            "Restarts of one worker within a minute; after one more it is tried again every half minute, and "
            "a model without workers is unavailable meanwhile."
        ),
    ] = 10
    log_format: Annotated[
        Literal["text", "json"],
        says("text for people, json for log collectors: one object per line."),
        OPTION,
    ] = "text"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        says("Least important messages to log."),
        OPTION,
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
        Annotated[int, Meta(ge=0, le=65535)],
        says("Port for Prometheus metrics, at http://127.0.0.1:PORT/metrics. 0: none."),
        OPTION,
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
    frigate_bind: Annotated[
        list[str],
        says("Addresses, tcp://IP:PORT or ipc://PATH, for Frigate's ZeroMQ detector."),
        OPTION,
    ] = []
    frigate_uploads: Annotated[
        Annotated[int, Meta(ge=0, le=64)],
        says(
            "Models that Frigate may upload where it asks for one that is not served. 0: none, since whoever reaches "
            "frigate_bind could have its own models run."
        ),
        OPTION,
    ] = 0
    frigate_upload_mb: Annotated[
        Annotated[int, Meta(ge=1, le=2048)],
        says("Most megabytes of a model that Frigate uploads."),
        OPTION,
    ] = 256
    imagezmq_bind: Annotated[
        list[str],
        says("Addresses, tcp://IP:PORT or ipc://PATH, for senders of imagezmq."),
        OPTION,
    ] = []
    imagezmq_model: Annotated[
        str,
        says(
            "The model that imagezmq's frames go to. None given: the first detector, else the first model that "
            "takes pictures."
        ),
        OPTION,
    ] = ""
    alias: Annotated[
        list[str],
        says(
            "Further names of models, OTHER=NAME, for clients of Roboflow's API that ask for projects: coco/3=detector."
        ),
        OPTION,
    ] = []
    http_memory_mb: Annotated[
        Annotated[int, Meta(ge=1, le=1_048_576)],
        says("Most megabytes of request bodies in the HTTP door, all together."),
        OPTION,
    ] = 512
    page_viewers: Annotated[
        Annotated[int, Meta(ge=0, le=1024)],
        says("Browsers that may watch the HTTP door's page at a time. 0: there is no page."),
        OPTION,
    ] = 16
    http_hosts: Annotated[
        list[str],
        says(
            "Further names of hosts by which clients reach the HTTP door, such as that of a proxy. Without keys a "
            "request for any other host is refused, because web pages can make a browser send it."
        ),
    ] = []
    http_idle_ms: Annotated[
        Annotated[float, Meta(ge=100, le=3_600_000)],
        says("Milliseconds a connection of the HTTP door may stay without a whole request head."),
    ] = 30_000
    http_silence_ms: Annotated[
        Annotated[float, Meta(ge=100, le=3_600_000)],
        says(
            "Milliseconds within which a byte of a request's body must come to the HTTP door, and a byte of an answer "
            "must be taken."
        ),
    ] = 10_000
