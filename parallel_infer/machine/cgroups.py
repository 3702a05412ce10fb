"""What control groups leave this process: cores and memory, by version 1 or 2, in a container or a systemd unit.

A limit may stand at the process's own group or at any group above it, and the least of them counts. /proc/self/cgroup
says which group that is, /proc/self/mountinfo where its files lie (cgroups(7), proc_pid_mountinfo(5)). In a container
the mount may show a part of the hierarchy only: then its root is as far up as can be seen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_GROUPS = Path("/proc/self/cgroup")
_MOUNTS = Path("/proc/self/mountinfo")
_UNIFIED = ""  # the controller under which version 2 stands in /proc/self/cgroup
_USUAL = "/sys/fs/cgroup"  # where the files lie on a machine that does not say so
_NO_LIMIT = 1 << 60  # bytes; version 1 says "no limit" as a number near 2**63

Read = Callable[[Path], str]
"""Reads a file; raises OSError where there is none."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is allowed; None where nothing limits it. `cores` may be a fraction, `memory` is in bytes."""

    cores: float | None
    memory: int | None


@dataclass(frozen=True, slots=True)
class _Mount:
    """A hierarchy as it is mounted: the group `root` and those below it are the folders at `point`."""

    controllers: frozenset[str]
    root: PurePosixPath
    point: PurePosixPath

    def folders(self, group: PurePosixPath) -> Iterator[Path]:
        """The folders of a group and of those above it, as far as they can be seen."""
        try:
            below = group.relative_to(self.root)
        except ValueError:  # the path is that of another namespace
            below = PurePosixPath()
        if ".." in below.parts:
            below = PurePosixPath()
        for folder in (below, *below.parents):
            yield Path(self.point / folder)


def limits() -> Limits:
    """The limits of this process, read now."""
    return limits_of(_content(_GROUPS), _content(_MOUNTS), _read)


def limits_of(groups: str, mounts: str, read: Read) -> Limits:
    """The limits that follow from the texts of /proc/self/cgroup and /proc/self/mountinfo and the files of the groups.

    Pure apart from `read`. What cannot be read or understood limits nothing.
    """
    membership = _membership(groups)
    mounted = _mounts(mounts) or _usual_mounts()
    cores: list[float | None] = []
    memory: list[int | None] = []
    for mount in mounted:
        for controller in mount.controllers & {_UNIFIED, "cpu", "memory"}:
            for folder in mount.folders(membership.get(controller, PurePosixPath("/"))):
                if controller in (_UNIFIED, "cpu"):
                    cores.append(_cores(folder, controller, read))
                if controller in (_UNIFIED, "memory"):
                    memory.append(_memory(folder, controller, read))
    return Limits(
        min((found for found in cores if found is not None), default=None),
        min((found for found in memory if found is not None), default=None),
    )


def _membership(text: str) -> dict[str, PurePosixPath]:
    """The group by controller, from lines `NUMBER:CONTROLLER,...:PATH`; version 2 has no controllers there."""
    found = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            found[controller] = PurePosixPath(path or "/")
    return found


def _mounts(text: str) -> list[_Mount]:
    """The mounted hierarchies, from lines `ID PARENT DEVICE ROOT POINT OPTIONS [...] - TYPE SOURCE OPTIONS`."""
    found = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        controllers = frozenset({_UNIFIED} if kind[0] == "cgroup2" else kind[2].split(","))
        found.append(_Mount(controllers, PurePosixPath(_unescaped(fields[3])), PurePosixPath(_unescaped(fields[4]))))
    return found


def _usual_mounts() -> list[_Mount]:
    root, point = PurePosixPath("/"), PurePosixPath(_USUAL)
    return [
        _Mount(frozenset({_UNIFIED}), root, point),
        *(_Mount(frozenset({name}), root, point / name) for name in ("cpu", "memory")),
    ]


def _unescaped(text: str) -> str:
    r"""Blanks and the like stand there in octal: `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _cores(folder: Path, controller: str, read: Read) -> float | None:
    try:
        if controller == _UNIFIED:
            quota, period = read(folder / "cpu.max").split()
        else:
            quota, period = read(folder / "cpu.cfs_quota_us").strip(), read(folder / "cpu.cfs_period_us").strip()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # "max" is no number
        return None


def _memory(folder: Path, controller: str, read: Read) -> int | None:
    try:
        limit = int(read(folder / ("memory.max" if controller == _UNIFIED else "memory.limit_in_bytes")))
    except (OSError, ValueError):
        return None
    return limit if limit < _NO_LIMIT else None


def _read(file: Path) -> str:
    return os.fsdecode(file.read_bytes())  # names of groups are bytes


def _content(file: Path) -> str:
    try:
        return _read(file)
    except OSError:
        return ""
