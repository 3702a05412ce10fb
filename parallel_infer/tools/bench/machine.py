"""Where figures come from: the machine, the versions and the command. Figures without them mean nothing."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from msgspec import Struct

from parallel_infer.machine.cores import usable_cores
from parallel_infer.machine.processor import processor_fields

PACKAGES = (
    *("parallel-infer", "numpy", "pyzmq", "msgspec", "opencv-python-headless", "simplejpeg"),
    *("onnxruntime", "onnxruntime-gpu", "onnxruntime-ep-openvino", "openvino"),
)
_GPUS = Path("/proc/driver/nvidia/gpus")


class Origin(Struct, frozen=True):
    """Machine, versions and command of a run."""

    processor: str
    cores: int  # that this process may use
    accelerators: tuple[str, ...]
    kernel: str
    python: str
    packages: dict[str, str]
    command: str

    @classmethod
    def here(cls, command: str) -> Origin:
        """That of this machine."""
        return cls(
            processor=processor(),
            cores=usable_cores(),
            accelerators=accelerators(),
            kernel=platform.release(),
            python=platform.python_version(),
            packages=installed(),
            command=command,
        )

    def lines(self) -> list[str]:
        """For people."""
        devices = "".join(f", {name}" for name in self.accelerators)
        packages = ", ".join(f"{name} {number}" for name, number in self.packages.items())
        return [
            f"machine: {self.processor}, {self.cores} cores{devices}, Linux {self.kernel}",
            f"versions: Python {self.python}, {packages}",
            f"command: {self.command}",
        ]

    def differences(self, other: Origin) -> Iterator[str]:
        """What is not the same, each as one text; commands may differ."""
        names = ("processor", "cores", "accelerators", "kernel", "python")
        pairs = [(name, getattr(self, name), getattr(other, name)) for name in names]
        packages = sorted(self.packages.keys() | other.packages.keys())
        pairs += [(name, self.packages.get(name, "none"), other.packages.get(name, "none")) for name in packages]
        for name, mine, theirs in pairs:
            if mine != theirs:
                yield f"{name}: {_text(mine)} here, {_text(theirs)} there"


def processor() -> str:
    """The processor's name."""
    return processor_fields().get("model name") or platform.processor() or platform.machine()


def accelerators() -> tuple[str, ...]:
    """Names of the NVIDIA devices that the driver knows."""
    texts = [path.read_text() for path in sorted(_GPUS.glob("*/information"))]
    lines = [line for text in texts for line in text.splitlines()]
    return tuple(line.split(":", 1)[1].strip() for line in lines if line.startswith("Model:"))


def installed() -> dict[str, str]:
    """The installed packages that figures depend on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _text(value: object) -> str:
    return ", ".join(value) or "none" if isinstance(value, tuple) else str(value)
