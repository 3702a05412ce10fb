"""How much memory programs that start now may take."""

from __future__ import annotations

from pathlib import Path

from parallel_infer.machine.cgroups import limits

MEMINFO = Path("/proc/meminfo")
_UNKNOWN = 1 << 62


def available_memory(file: Path = MEMINFO) -> int:
    """Bytes that can be had without swapping, and that control groups allow; very many where nobody says."""
    allowed = limits().memory
    return min(_said(file), allowed if allowed is not None else _UNKNOWN)


def _said(file: Path) -> int:
    try:
        for line in file.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) << 10
    except (OSError, ValueError, IndexError):
        pass
    return _UNKNOWN
