"""How many processor cores this process may use, and how models share them by default."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from parallel_infer.machine.cgroups import limits

_MOST_ALONE = 8  # threads beyond which one picture gains little
NVIDIA = Path("/proc/driver/nvidia/version")
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_CUDA = "capi/libonnxruntime_providers_cuda.so"  # in ONNX Runtime's package, where it was built for CUDA


def usable_cores() -> int:
    """Cores by affinity, which cpusets are part of, and by the quotas of control groups; whichever is least."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return whole_cores(cores, limits().cores)


def whole_cores(cores: int, quota: float | None) -> int:
    """`cores`, or as many as a quota comes nearest to, half a core upwards; at least one."""
    return cores if quota is None else max(1, min(cores, math.floor(quota + 0.5)))


class Split(NamedTuple):
    """How a model uses the cores."""

    instances: int  # infer workers
    threads: int  # of each
    alone_threads: int  # of one that has the machine to itself


def split_cores(
    cores: int, models: int, gpus: int, instances: int = 0, threads: int = 0, alone_threads: int = 0
) -> Split:
    """The split for one of so many models; what is not 0 was asked for.

    Several instances of few threads compute more pictures per second than one of many: operators scale badly. One
    picture alone is another matter, so it gets more threads, unless `threads` was asked for. A GPU has its own cores,
    and as many models as cores keep these busy without copies. `gpus` are those that the model runs on, 0 for none.
    """
    if not instances:
        instances = gpus or (1 if models >= cores else max(2, cores // 4))
    limited = threads > 0
    threads = threads or max(1, cores // instances)
    alone = threads if limited or gpus else max(threads, min(cores, _MOST_ALONE))
    return Split(instances, threads, alone_threads or alone)


def default_decode_workers(cores: int, on_gpu: bool) -> int:
    """Half of the cores where models need the others, most of them where a GPU computes: decoding then is the work."""
    return max(1, cores * 7 // 8 if on_gpu else cores // 2)


def visible_gpus(devices: Path = Path("/dev"), environment: Mapping[str, str] = os.environ) -> int:
    """NVIDIA GPUs that a process here may use: those of CUDA_VISIBLE_DEVICES, else all with a device file."""
    if environment.get(_VISIBLE):
        return len(environment[_VISIBLE].split(","))
    return sum(path.name.removeprefix("nvidia").isdecimal() for path in devices.glob("nvidia*"))


def has_gpu(driver: Path = NVIDIA) -> bool:
    """Whether a driver for NVIDIA GPUs is loaded and the ONNX Runtime here can use one, without loading it."""
    package = importlib.util.find_spec("onnxruntime")
    folders = (package.submodule_search_locations or ()) if package is not None else ()
    return driver.exists() and any(Path(folder, _CUDA).is_file() for folder in folders)
