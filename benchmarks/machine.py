"""What every benchmark says first: the machine, the versions, and the command that made the figures."""

from __future__ import annotations

import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from parallel_infer.cores import usable_cores

_PACKAGES = ("numpy", "pyzmq", "msgspec", "onnxruntime", "onnxruntime-gpu", "opencv-python-headless", "simplejpeg")


def processor() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """The installed packages that the figures depend on."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def print_header() -> None:
    """Print machine, versions and command."""
    print(f"machine: {processor()}, {usable_cores()} cores, Linux {platform.release()}")
    packages = ", ".join(f"{name} {number}" for name, number in versions().items())
    print(f"versions: Python {platform.python_version()}, {packages}")
    script = Path(sys.argv[0])
    print(f"command: python benchmarks/{script.name} {shlex.join(sys.argv[1:])}".rstrip())
    print()
