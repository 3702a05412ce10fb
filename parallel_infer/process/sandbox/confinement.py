"""Confinement: what a process can still do after something it read took it over, or made it go mad.

Decode workers read what strangers send with large libraries written in C. They need memory, their rings and the run's
sockets; so that is what they keep. The process that probes a model file keeps the machine, within limits of memory and
time. What is in force is written to the log; docs/security.md says what it means.
"""

from __future__ import annotations

import os
import resource
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from parallel_infer.process.sandbox.landlock import restrict_files
from parallel_infer.process.sandbox.seccomp import restrict_calls

_MEBI = 1 << 20
_BASE = 1024 * _MEBI  # code, buffers of libraries
_PER_CORE = 64 * _MEBI  # stacks and buffers of a library's threads
_PER_PIXEL = 24  # bytes: 16-bit pixels, their 8-bit copy, and scratch of the decoder
_OPEN_FILES = 1024
_PROBE_BASE = 2048 * _MEBI
_PER_MODEL_BYTE = 6  # the file, the parsed graph, the session's weights, and those of a rewritten copy
_OURS = ("parallel_infer", "stages")
_SYSTEM = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo", "/usr/share/locale"),
    *("/etc/localtime", "/etc/ld.so.cache", "/sys/devices/system", "/sys/fs/cgroup", "/proc/self", "/proc/cpuinfo"),
    *("/proc/meminfo", "/proc/stat", "/proc/sys/vm", "/dev/urandom"),
)
PARTLY = "confined in part only"


def confine_decoder(max_pixels: int, code: Iterable[str] = (), kept: int = 0) -> str:
    """Keep a decode worker from everything but its work, for good. Call it before there is a second thread.

    `code` names further packages it may import from, `kept` is bytes of pictures that it keeps. Returns what is in
    force, beginning with PARTLY where the kernel cannot do all of it.
    """
    memory = _BASE + _PER_CORE * (os.cpu_count() or 1) + _PER_PIXEL * max_pixels + kept
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_DATA, memory)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    missing = [
        reason
        for reason in (
            restrict_files([*_readable(code)], [Path("/dev/shm"), Path("/dev/null")]),
            restrict_calls(),
        )
        if reason
    ]
    if missing:
        return f"{PARTLY} ({'; '.join(missing)})"
    return f"confined: {memory >> 20} MB of memory, no files but code and shared memory, no processes, no network"


def limit_probe(path: Path, seconds: float) -> None:
    """Bound what looking into a model file may cost: memory by the size of its folder's model files, and CPU time."""
    folder = path.parent if path.is_file() else path
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) if folder.is_dir() else 0
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_DATA, _PROBE_BASE + _PER_CORE * (os.cpu_count() or 1) + _PER_MODEL_BYTE * size)
    _limit(resource.RLIMIT_CPU, max(1, int(seconds * (os.cpu_count() or 1))))


def _limit(kind: int, most: int) -> None:
    """Lower a limit, hard and soft, never raising what the administrator has set."""
    _, hard = resource.getrlimit(kind)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


def _readable(code: Iterable[str]) -> Iterator[Path]:
    """Where the interpreter and its packages lie; not the folders on sys.path themselves, one may be a home."""
    for path in _SYSTEM:
        yield Path(path)
    for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}:
        yield Path(prefix) / "lib"
        yield Path(prefix) / "lib64"
        yield Path(prefix) / "pyvenv.cfg"
    for name in ("stdlib", "platstdlib", "purelib", "platlib"):
        yield Path(sysconfig.get_path(name))
    for folder in sys.path:
        if folder.endswith(("site-packages", "dist-packages", "lib-dynload", ".zip")):
            yield Path(folder)
        else:
            yield from _installed(Path(folder))
        for package in {*_OURS, *code}:
            yield Path(folder or ".") / package


def _installed(folder: Path) -> Iterator[Path]:
    """Packages in a folder of any name that pip installed into (`pip install --target`), and nothing beside them."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder))
    except OSError:
        return
    if any(name.endswith(".dist-info") for name in names):
        for name in names:
            path = folder / name
            if name.endswith((".dist-info", ".libs", ".py", ".so")) or (path / "__init__.py").is_file():
                yield path
