"""How many processor cores this process may use, and how models share them by default."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_MOST_ALONE = 8  # threads beyond which one picture gains little
_NVIDIA = Path("/proc/driver/nvidia/version")


def usable_cores() -> int:
    """Cores by affinity and by the container's quota, whichever is less; at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        pass
    return cores


class Split(NamedTuple):
    """How a model uses the cores."""

    instances: int  # infer workers
    threads: int  # of each
    alone_threads: int  # of one that has the machine to itself


def split_cores(
    cores: int, models: int, on_gpu: bool, instances: int = 0, threads: int = 0, alone_threads: int = 0
) -> Split:
    """The split for one of so many models; what is not 0 was asked for.

    Several instances of few threads compute more pictures per second than one of many: operators scale badly. One
    picture alone is another matter, so it gets more threads, unless `threads` was asked for. A GPU has its own cores,
    and as many models as cores keep these busy without copies.
    """
    if not instances:
        instances = 1 if on_gpu or models >= cores else max(2, cores // 4)
    limited = threads > 0
    threads = threads or max(1, cores // instances)
    alone = threads if limited or on_gpu else max(threads, min(cores, _MOST_ALONE))
    return Split(instances, threads, alone_threads or alone)


def has_gpu() -> bool:
    """Whether a driver for NVIDIA GPUs is loaded."""
    return _NVIDIA.exists()
