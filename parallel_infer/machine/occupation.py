"""How busy the cores are, and with whose work: proc_stat(5)."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import NamedTuple

STAT = Path("/proc/stat")
_IDLE = (3, 4)  # columns idle and iowait; what a hypervisor steals is work of others
_KINDS = 8  # columns; guest time, which follows, is in user time already


class Moment(NamedTuple):
    """What was used until a moment, in seconds of processor time."""

    busy: float = 0.0  # of the cores that this process may run on, by anybody
    total: float = 0.0  # that these had
    ours: float = 0.0  # by this process and its children that have ended


def moment(file: Path = STAT) -> Moment:
    """Now; nothing is busy where the machine does not say."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return Moment()
    cores = os.sched_getaffinity(0)
    busy = total = 0.0
    for line in lines:
        name, *columns = line.split()
        if name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in cores:
            ticks = [int(column) for column in columns[:_KINDS]]
            total += sum(ticks)
            busy += sum(ticks) - sum(ticks[column] for column in _IDLE)
    hertz = os.sysconf("SC_CLK_TCK")
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return Moment(busy / hertz, total / hertz, sum(usage.ru_utime + usage.ru_stime for usage in usages))


def taken_by_others(before: Moment, after: Moment, cores: int, all_cores: int) -> float:
    """The part, 0 to 1, of the `cores` a process may use that others took between two moments.

    Where a quota leaves it fewer than the `all_cores` it may run on, others take those first that it cannot use.
    """
    seconds = after.total - before.total
    if seconds <= 0:
        return 0.0
    others = (after.busy - before.busy - (after.ours - before.ours)) / seconds * all_cores
    return min(1.0, max(0.0, others + cores - all_cores) / cores)
