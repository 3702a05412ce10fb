"""What the engine is told: the models it serves and where, how they are computed, and its limits; no front doors."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from parallel_infer.config.model_schema import (
    OPTION,
    Count,
    Devices,
    Megabytes,
    Milliseconds,
    ModelConfig,
    Precision,
    says,
)
from parallel_infer.execution_providers import ProviderName

USUAL_BATCH = 8
"""The largest batch, where `max_batch_size` is not given and no trial has found another."""


class EngineConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The part of `ServerConfig` that is not about access, logs, metrics and doors."""

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
        list[str], says("Addresses to listen on: tcp://IP:PORT, or ipc://PATH for clients on this machine."), OPTION
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
        Count | None,
        says(
            "Most pictures that one run of a model takes. A larger batch gives a GPU more throughput and each "
            "picture more latency. None given: 8, or more where a trial finds that faster."
        ),
        OPTION,
    ] = None
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
        int,
        says(
            "Infer workers per model: copies of the model that run side by side. 0: chosen for the machine.",
            ge=0,
            le=64,
        ),
        OPTION,
    ] = 0
    threads: Annotated[
        int, says("Threads of ONNX Runtime per instance. 0: chosen for the machine.", ge=0, le=256), OPTION
    ] = 0
    trial: Annotated[
        bool,
        says(
            "At a model's first start on a machine, measure a few settings of instances, threads and largest batch "
            "and take the fastest. What is set by hand is left alone. The result is kept in the folder for caches."
        ),
        OPTION,
    ] = True
    trial_seconds: Annotated[
        float, says("Most seconds that trying settings may add to a start.", ge=1, le=600), OPTION
    ] = 20.0
    alone_threads: Annotated[
        int,
        says(
            "Threads for a picture that has the machine to itself; more than `threads` takes a second session "
            "per instance. 0: chosen for the machine, and as many as `threads` where those are given.",
            ge=0,
            le=256,
        ),
    ] = 0
    decode: Annotated[
        Literal["exact", "fast"],
        says(
            "exact decodes every picture in full; fast lets JPEG pictures be decoded at reduced size where "
            "the model's input is much smaller, and else with coarser colours."
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
        Megabytes, says("Most megabytes of outputs per job, for models whose graph does not say how large they get.")
    ] = 16.0
    # of ONNX Runtime sessions
    inter_threads: Annotated[
        int, says("Operators of one run that ONNX Runtime computes side by side.", ge=1, le=256)
    ] = 1
    streams: Annotated[int, says("Runs that OpenVINO computes at once, per instance.", ge=1, le=64)] = 1
    optimization: Annotated[
        Literal["disabled", "basic", "extended", "all"], says("How far ONNX Runtime rewrites a graph when it loads it.")
    ] = "all"
    cpu_arena: Annotated[bool, says("Let ONNX Runtime keep freed memory for its next run.")] = True
    memory_pattern: Annotated[
        bool, says("Let ONNX Runtime plan the memory of a run ahead, for runs of the same shape.")
    ] = True
    device: Annotated[
        Devices,
        says(
            "GPUs that the models run on with cuda and tensorrt: a number, several as 0,1, or auto for all. Instances "
            "are spread over them, one on each where `instances` is 0."
        ),
        OPTION,
    ] = 0
    gpu_mem_limit_mb: Annotated[
        int, says("Most megabytes of GPU memory per instance, for cuda and tensorrt. 0: no limit.", ge=0, le=1_048_576)
    ] = 0
    arena_strategy: Annotated[
        Literal["power-of-two", "as-requested"],
        says("How GPU memory grows: to the next power of two, or by what is requested."),
    ] = "power-of-two"
    page_locked: Annotated[
        bool, says("Page-lock the rows and outputs of models on cuda, so that the GPU reads and writes them by itself.")
    ] = True
    cuda_graphs: Annotated[
        bool,
        says(
            "Record a run of each batch size as a CUDA graph and repeat it. For models that run on the GPU throughout; "
            "others, and all with false, are always computed in their largest batch, which is slower."
        ),
    ] = True
    cuda_overlap: Annotated[
        bool,
        says(
            "Copy one batch to and from the GPU while another is computed by the same instance, with `page_locked` and "
            "`cuda_graphs`. Takes the GPU memory of inputs and outputs a second time."
        ),
    ] = True
    cache: Annotated[
        str | None,
        says(
            "Folder for compiled models (openvino) and engines (tensorrt), so that the next start is quick, and for "
            "what trials found. None given: only the latter is kept, below $XDG_CACHE_HOME or ~/.cache."
        ),
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
        str | None, says("Folder to write ONNX Runtime's profile of every instance to, when it stops.")
    ] = None
    # processes
    decode_workers: Annotated[
        int, says("Processes that decode and resize pictures. 0: chosen for the machine.", ge=0, le=256), OPTION
    ] = 0
    postprocess_workers: Annotated[
        int, says("Processes that turn model outputs into answers. 0: chosen for the machine.", ge=0, le=256), OPTION
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
        float,
        says(
            "The dispatcher, the gateway or a door is replaced after this many milliseconds without a sign of life.",
            ge=1000,
            le=3_600_000,
        ),
    ] = 10_000.0
    stage_limit_ms: Annotated[
        float,
        says(
            "A worker that works on one job or batch for longer than this many milliseconds is stopped and replaced.",
            ge=100,
            le=3_600_000,
        ),
    ] = 30_000.0
    start_timeout_ms: Annotated[
        float, says("Milliseconds the server may take to start, model loading included.", ge=1000, le=3_600_000)
    ] = 120_000.0
    drain_timeout_ms: Annotated[
        float,
        says("Milliseconds that admitted jobs get to finish when the server is told to stop.", ge=0, le=3_600_000),
    ] = 10_000.0
    # memory and limits
    shared_memory_mb: Annotated[
        int, says("Megabytes of shared memory for the payloads of waiting requests.", ge=8, le=1_048_576), OPTION
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
        int,
        says(
            "Most megabytes of shared memory lent to clients on this machine, all together. 0: none is lent.",
            ge=0,
            le=1_048_576,
        ),
    ] = 256
    chain: Annotated[
        dict[str, str],
        says(
            "Chains, which clients ask for as for models: NAME=STEPS, for example plates=detector(class_filter=car) > "
            "reader. In the file a table `[chain.NAME]` with the key `steps`."
        ),
        OPTION,
    ] = {}
    max_objects: Annotated[
        int,
        says(
            "Most objects of a picture that a step of a chain asks about, the best ones; a step may say otherwise.",
            ge=1,
            le=100_000,
        ),
        OPTION,
    ] = 64
    max_crops: Annotated[
        int,
        says("Most objects that one request to a chain asks about, all steps together.", ge=1, le=1_000_000),
        OPTION,
    ] = 256
    kept_pictures_mb: Annotated[
        int,
        says(
            "Megabytes of decoded pictures that each decode worker keeps while a chain may cut objects out of them, or "
            "another model of a fan has no row yet. 0: a picture is decoded again for its objects.",
            ge=0,
            le=1_048_576,
        ),
        OPTION,
    ] = 64
    response_cache_mb: Annotated[
        int,
        says(
            "Megabytes of answers that the gateway keeps, to answer the same payload with the same options from "
            "the same model again without computing. 0: none are kept.",
            ge=0,
            le=1_048_576,
        ),
        OPTION,
    ] = 0
    max_payload_mb: Annotated[
        Megabytes, says("Largest payload of one request, in megabytes, whichever way it comes."), OPTION
    ] = 32.0
    max_pixels: Annotated[
        int, says("Pictures of more pixels are refused before they are decoded.", ge=1, le=2**40), OPTION
    ] = 50_000_000
    formats: Annotated[
        list[Literal["jpeg", "png", "webp", "bmp", "tiff", "gif", "avif", "jp2"]],
        says("Picture formats to accept, told by their first bytes; docs/pictures.md says what of each is read."),
        OPTION,
    ] = msgspec.field(default_factory=lambda: ["jpeg", "png", "webp"])
    max_clients: Annotated[
        int,
        says(
            "Most clients connected at the same time; each takes a file descriptor (`ulimit -n`).", ge=1, le=1_000_000
        ),
    ] = 1024
