"""Environments of clients whose packages cannot stand beside ours or are heavy: made once, kept between runs.

They lie in the user's cache (`$XDG_CACHE_HOME/parallel-infer-tests`, one folder for each list of packages), and may be
deleted at any time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import venv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_INSTALL_TIMEOUT = 540  # seconds
_RUN_TIMEOUT = 240  # seconds; a file's own graph is loaded at its first use, on a busy machine


@dataclass(frozen=True)
class Environment:
    """A Python of its own, or ours, and what its programs are told beside."""

    python: Path
    variables: dict[str, str] = field(default_factory=dict)

    def run(self, code: str, folder: Path) -> str:
        """What a program printed. It must end well."""
        return self._run([str(self.python), "-W", "ignore", "-c", code], folder)

    def told(self, program: str, folder: Path, *arguments: str) -> Any:
        """What a program of the folder programs/ printed as JSON in its last line."""
        script = Path(__file__).parent / "programs" / program
        printed = self._run([str(self.python), "-W", "ignore", str(script), *arguments], folder)
        return json.loads(printed.splitlines()[-1])

    def shell(self, lines: str, folder: Path) -> str:
        """What lines of a shell printed, with the environment's programs on the path. They must end well."""
        return self._run(["bash", "-e", "-c", lines], folder)

    def _run(self, command: list[str], folder: Path) -> str:
        path = f"{self.python.parent}{os.pathsep}{os.environ['PATH']}"
        ran = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PATH": path, "HOME": str(folder), **self.variables},
            capture_output=True,
            text=True,
            timeout=_RUN_TIMEOUT,
            check=False,
        )
        assert ran.returncode == 0, f"{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}"
        return ran.stdout


OURS = Environment(Path(sys.executable))


def installed(name: str, *packages: str) -> Path:
    """The folder of an environment with these packages. Skips the test, with pip's reason, where it cannot be made."""
    wanted = "\n".join((sys.version, *packages))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "parallel-infer-tests"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"{name}-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    with Path(f"{folder}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs of the tests at a time
        if not (folder / "complete").exists():
            _install(folder, packages)
            (folder / "complete").write_text(wanted)
    return folder


def _install(folder: Path, packages: tuple[str, ...]) -> None:
    venv.create(folder, clear=True, with_pip=True)
    try:
        ran = subprocess.run(
            [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *packages],
            capture_output=True,
            text=True,
            timeout=_INSTALL_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{', '.join(packages)} were not installed within {_INSTALL_TIMEOUT} s")
    if ran.returncode != 0:
        errors = [line for line in ran.stderr.splitlines() if line.startswith("ERROR")]
        pytest.skip(f"{', '.join(packages)} cannot be installed: {' '.join(errors) or ran.stderr[-400:]}")


def kserve() -> Environment:
    return _plain("kserve", "kserve==0.21.0")


def roboflow() -> Environment:
    return _plain("roboflow", "inference-sdk==1.8.3", "supervision==0.30.9")


def roboflow_before_1() -> Environment:
    return _plain("roboflow-0.9", "inference-sdk==0.9.23")


def _plain(name: str, *packages: str) -> Environment:
    return Environment(installed(name, *packages) / "bin" / "python")


def perf_analyzer() -> Environment:
    """The program of tritonclient's wheel. It wants two libraries that no Python package names."""
    folder = installed("perf-analyzer", "tritonclient[http,grpc]==2.49.0", "nvidia-cuda-runtime-cu12==12.9.79")
    (cuda,) = folder.glob("lib/python*/site-packages/nvidia/cuda_runtime/lib")
    variables = {"LD_LIBRARY_PATH": str(cuda)}
    program = folder / "bin" / "perf_analyzer"
    linked = subprocess.run(
        ["ldd", program], env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    missing = [line.split()[0] for line in linked.stdout.splitlines() if "not found" in line]
    if missing:
        pytest.skip(f"perf_analyzer needs {', '.join(missing)}; on Debian: apt install libb64-0d")
    return Environment(folder / "bin" / "python", variables)


# A torchvision built for CUDA does not register its operators beside a torch for processors, and then cannot be
# imported. Ultralytics uses of it here no more than the suppression of boxes, for which it has an own function as well.
_TORCHVISION = """
import torch
from ultralytics.utils.nms import TorchNMS

register = torch.library.register_fake
torch.library.register_fake = lambda name, *args, **named: lambda function: function
import torchvision

torch.library.register_fake = register
torchvision.ops.nms = TorchNMS.nms
"""


def ultralytics() -> Environment:
    """Ultralytics with torch for processors: the usual one brings several GB of CUDA."""
    packages = ("ultralytics==8.4.190", "torch==2.13.0+cpu", "torchvision==0.28.0", "tritonclient[http,grpc]==2.73.0")
    folder = installed("ultralytics", *packages)
    python = folder / "bin" / "python"
    variables = {"YOLO_CONFIG_DIR": str(folder / "settings"), "YOLO_AUTOINSTALL": "false"}
    (folder / "settings").mkdir(exist_ok=True)
    imports = subprocess.run([python, "-c", "import torchvision"], capture_output=True, check=False)
    if imports.returncode != 0:
        (folder / "torchvision").mkdir(exist_ok=True)
        (folder / "torchvision" / "sitecustomize.py").write_text(_TORCHVISION)
        variables["PYTHONPATH"] = str(folder / "torchvision")
    return Environment(python, variables)
