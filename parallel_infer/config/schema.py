"""What a server is told: one frozen structure, with every limit, its default and what it means.

Names are those of the TOML file, of the command line (with dashes) and of the environment (`PARALLEL_INFER_` and upper
case). `config_sources` reads those places; nothing else in the project knows where a value came from.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=1, le=4096)]
Milliseconds = Annotated[float, Meta(ge=0, le=3_600_000)]


class ModelConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[models.NAME]` table. What is None comes from the server's defaults or from the ONNX file."""

    path: str
    # what the file means; see stages.families
    family: str | None = None
    task: str | None = None
    names: list[str] | dict[int | str, str] | str | None = None
    resize: str | None = None
    imgsz: int | list[int] | None = None
    conf: float | None = None
    iou: float | None = None
    mean: float | list[float] | None = None
    std: float | list[float] | None = None
    color: str | None = None
    pad: int | None = None
    crop_fraction: float | None = None
    filter: str | None = None
    kpt_shape: list[int] | None = None
    background: int | None = None
    multi_label: bool | None = None
    shapes: dict[str, list[int]] | None = None
    # how it runs
    max_batch_size: Count | None = None
    preferred_batch_size: Count | None = None  # a batch of this size starts without waiting for more
    max_queue_delay_ms: Milliseconds | None = None
    queue_size: Count | None = None
    instances: Annotated[int, Meta(ge=1, le=64)] | None = None
    threads: Annotated[int, Meta(ge=1, le=256)] | None = None  # of ONNX Runtime, per instance
    provider: Literal["auto", "cpu", "openvino", "cuda", "tensorrt"] | None = None
    precision: Literal["auto", "fp32", "bf16", "fp16"] | None = None
    decode: Literal["exact", "fast"] | None = None
    uint8_rows: bool | None = None
    weight: Annotated[float, Meta(gt=0, le=1000)] = 1.0  # share of the CPU stages against other models
    max_output_mb: Annotated[float, Meta(gt=0, le=4096)] | None = None  # per job, where the graph does not say

    def overrides(self) -> dict[str, Any]:
        """The part that `stages.recognise.describe` understands, without what is not set."""
        return {key: value for key in _OVERRIDES if (value := getattr(self, key)) is not None}


_OVERRIDES = (
    *("family", "task", "names", "resize", "imgsz", "conf", "iou", "mean", "std", "color", "pad"),
    *("crop_fraction", "filter", "kpt_shape", "background", "multi_label", "shapes"),
)


class ServerConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a server is told. The top level of the TOML file."""

    models: dict[str, ModelConfig] = {}
    bind: list[str] = msgspec.field(default_factory=lambda: ["tcp://127.0.0.1:5555"])
    # defaults of every model
    provider: Literal["auto", "cpu", "openvino", "cuda", "tensorrt"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    max_batch_size: Count = 8
    max_queue_delay_ms: Milliseconds = 2.0
    queue_size: Count = 256  # jobs of one model that wait for decoding
    instances: Annotated[int, Meta(ge=0, le=64)] = 0  # infer workers per model; 0: chosen for the machine
    threads: Annotated[int, Meta(ge=0, le=256)] = 0  # of ONNX Runtime, per instance; 0: chosen for the machine
    alone_threads: Annotated[int, Meta(ge=0, le=256)] = 0  # of a picture that has the machine to itself
    decode: Literal["exact", "fast"] = "exact"
    uint8_rows: bool = True  # normalise inside the graph where it allows it: rows four times smaller
    max_output_mb: Annotated[float, Meta(gt=0, le=4096)] = 16.0
    # of ONNX Runtime sessions
    inter_threads: Annotated[int, Meta(ge=1, le=256)] = 1  # operators of one run side by side
    streams: Annotated[int, Meta(ge=1, le=64)] = 1  # openvino
    optimization: Literal["disabled", "basic", "extended", "all"] = "all"
    cpu_arena: bool = True
    memory_pattern: bool = True
    device: Annotated[int, Meta(ge=0, le=255)] = 0  # cuda, tensorrt
    gpu_mem_limit_mb: Annotated[int, Meta(ge=0, le=1_048_576)] = 0  # cuda, tensorrt; 0: no limit
    arena_strategy: Literal["power-of-two", "as-requested"] = "power-of-two"  # cuda, tensorrt
    page_locked: bool = True  # cuda
    cuda_graphs: bool = False  # cuda
    cache: str | None = None  # folder for compiled models (openvino) and engines (tensorrt)
    model_copies: str | None = None  # folder for the run's own copies of model files
    profile: str | None = None  # folder for ONNX Runtime's profiles
    # processes
    decode_workers: Annotated[int, Meta(ge=0, le=256)] = 0  # 0: chosen for the machine
    postprocess_workers: Annotated[int, Meta(ge=0, le=256)] = 0
    # time
    timeout_ms: Annotated[float, Meta(gt=0, le=3_600_000)] = 30_000.0  # of a request that names none
    silence_limit_ms: Annotated[float, Meta(ge=1000, le=3_600_000)] = 10_000.0  # of the dispatcher and the gateway
    stage_limit_ms: Annotated[float, Meta(ge=100, le=3_600_000)] = 30_000.0  # a worker silent for longer is killed
    start_timeout_ms: Annotated[float, Meta(ge=1000, le=3_600_000)] = 120_000.0
    drain_timeout_ms: Annotated[float, Meta(ge=0, le=3_600_000)] = 10_000.0
    # memory and limits
    shared_memory_mb: Annotated[int, Meta(ge=8, le=1_048_576)] = 256  # of the ingress rings
    lent_memory_mb: Annotated[int, Meta(ge=0, le=1_048_576)] = 256  # of all rings lent to local clients
    max_payload_mb: Annotated[float, Meta(gt=0, le=4096)] = 32.0
    max_pixels: Annotated[int, Meta(ge=1, le=2**40)] = 50_000_000
    formats: list[Literal["jpeg", "png", "webp", "bmp", "tiff", "gif", "avif", "jp2"]] = msgspec.field(
        default_factory=lambda: ["jpeg", "png", "webp"]
    )
    max_clients: Annotated[int, Meta(ge=1, le=1_000_000)] = 1024
    # who may connect
    keys: str | None = None
    insecure: bool = False
    confine: Literal["on", "off"] = "on"  # decode workers, where the kernel can
    restart_budget: Annotated[int, Meta(ge=0, le=1_000_000)] = 10  # restarts of one worker within a minute
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    metrics_host: Annotated[str, Meta(min_length=1, max_length=255)] = "127.0.0.1"
    metrics_port: Annotated[int, Meta(ge=0, le=65535)] = 0  # 0: none
