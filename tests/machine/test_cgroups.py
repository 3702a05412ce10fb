"""Limits of control groups, from what the files of real machines look like."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from parallel_infer.machine.cgroups import Limits, limits_of
from parallel_infer.machine.cores import usable_cores, whole_cores

MEBI = 1 << 20
V2_MOUNT = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1_CPU = "33 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct"
V1_MEMORY = "36 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"
DISK = "23 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw"
UNLIMITED = str(2**63 - 4096)

MACHINES: dict[str, tuple[str, str, dict[str, str], Limits]] = {
    "no control groups": ("", DISK, {}, Limits(None, None)),
    "version 2, no limit": (
        "0::/user.slice/session-1.scope",
        V2_MOUNT,
        {"/sys/fs/cgroup/user.slice/cpu.max": "max 100000", "/sys/fs/cgroup/user.slice/memory.max": "max"},
        Limits(None, None),
    ),
    "systemd, CPUQuota=150% and MemoryMax=1G of a unit": (
        "0::/system.slice/parallel-infer.service",
        f"{DISK}\n{V2_MOUNT}",
        {
            "/sys/fs/cgroup/system.slice/parallel-infer.service/cpu.max": "150000 100000",
            "/sys/fs/cgroup/system.slice/parallel-infer.service/memory.max": str(1024 * MEBI),
        },
        Limits(1.5, 1024 * MEBI),
    ),
    "systemd, a slice above the unit has less": (
        "0::/system.slice/parallel-infer.service",
        V2_MOUNT,
        {
            "/sys/fs/cgroup/system.slice/parallel-infer.service/cpu.max": "800000 100000",
            "/sys/fs/cgroup/system.slice/cpu.max": "200000 100000",
            "/sys/fs/cgroup/system.slice/memory.max": str(512 * MEBI),
            "/sys/fs/cgroup/system.slice/parallel-infer.service/memory.max": "max",
        },
        Limits(2.0, 512 * MEBI),
    ),
    "docker, version 2, a namespace of its own": (
        "0::/",
        "1024 1020 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw",
        {"/sys/fs/cgroup/cpu.max": "50000 100000", "/sys/fs/cgroup/memory.max": str(256 * MEBI)},
        Limits(0.5, 256 * MEBI),
    ),
    "docker, version 2, the host's namespace": (
        "0::/system.slice/docker-4f.scope",
        "1024 1020 0:26 /system.slice/docker-4f.scope /sys/fs/cgroup ro - cgroup2 cgroup rw",
        {"/sys/fs/cgroup/cpu.max": "300000 100000"},
        Limits(3.0, None),
    ),
    "docker, version 1": (
        "4:memory:/docker/4f\n3:cpu,cpuacct:/docker/4f\n1:name=systemd:/docker/4f",
        (
            "700 690 0:29 /docker/4f /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
            "701 690 0:32 /docker/4f /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory"
        ),
        {
            "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000",
            "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes": str(300 * MEBI),
        },
        Limits(2.5, 300 * MEBI),
    ),
    "version 1, a quota at a group of the host": (
        "9:cpu,cpuacct:/jobs/one\n5:memory:/jobs/one\n0::/",
        f"{V1_CPU}\n{V1_MEMORY}",
        {
            "/sys/fs/cgroup/cpu,cpuacct/jobs/one/cpu.cfs_quota_us": "-1",
            "/sys/fs/cgroup/cpu,cpuacct/jobs/one/cpu.cfs_period_us": "100000",
            "/sys/fs/cgroup/cpu,cpuacct/jobs/cpu.cfs_quota_us": "50000",
            "/sys/fs/cgroup/cpu,cpuacct/jobs/cpu.cfs_period_us": "100000",
            "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
            "/sys/fs/cgroup/memory/jobs/one/memory.limit_in_bytes": UNLIMITED,
            "/sys/fs/cgroup/memory/memory.limit_in_bytes": UNLIMITED,
        },
        Limits(0.5, None),
    ),
    "kubernetes, version 1": (
        "6:cpu,cpuacct:/kubepods/burstable/pod1/c2\n2:memory:/kubepods/burstable/pod1/c2",
        (
            "90 80 0:29 /kubepods/burstable/pod1/c2 /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
            "91 80 0:32 /kubepods/burstable/pod1/c2 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory"
        ),
        {
            "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "400000",
            "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes": str(2048 * MEBI),
        },
        Limits(4.0, 2048 * MEBI),
    ),
    "hybrid: version 2 is mounted and has no controllers": (
        "4:memory:/a\n3:cpu:/a\n0::/a",
        f"{V1_CPU}\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
        {
            "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "100000",
            "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "50000",
        },
        Limits(2.0, None),
    ),
    "version 2, moved out of its namespace": (
        "0::/../other",
        V2_MOUNT,
        {"/sys/fs/cgroup/cpu.max": "100000 100000"},
        Limits(1.0, None),
    ),
    "mounted elsewhere, with a blank": (
        "0::/x",
        r"29 23 0:26 / /mnt/control\040groups rw - cgroup2 cgroup2 rw",
        {"/mnt/control groups/x/cpu.max": "100000 100000"},
        Limits(1.0, None),
    ),
    "no /proc": (
        "",
        "",
        {"/sys/fs/cgroup/cpu.max": "100000 100000", "/sys/fs/cgroup/memory.max": str(64 * MEBI)},
        Limits(1.0, 64 * MEBI),
    ),
    "nonsense": (
        "x\n:::\n0::",
        f"a - cgroup2\n{V2_MOUNT}",
        {"/sys/fs/cgroup/cpu.max": "1 0", "/sys/fs/cgroup/memory.max": "much"},
        Limits(None, None),
    ),
}


@pytest.mark.parametrize("name", MACHINES)
def test_the_least_limit_from_the_group_upwards_counts(name: str) -> None:
    groups, mounts, files, expected = MACHINES[name]

    def read(file: Path) -> str:
        if str(file) not in files:
            raise FileNotFoundError(file)
        return files[str(file)] + "\n"

    assert limits_of(groups, mounts, read) == expected


@pytest.mark.parametrize(
    ("cores", "quota", "expected"),
    [(8, None, 8), (8, 0.01, 1), (8, 0.5, 1), (8, 1.4, 1), (8, 1.5, 2), (8, 2.5, 3), (8, 3.0, 3), (2, 64.0, 2)],
)
def test_a_fraction_of_a_core_becomes_the_nearest_number(cores: int, quota: float | None, expected: int) -> None:
    assert whole_cores(cores, quota) == expected


@pytest.mark.skipif(usable_cores() < 2, reason="one core: nothing can be taken away")
def test_affinity_counts() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from parallel_infer.cores import usable_cores; print(usable_cores())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"
