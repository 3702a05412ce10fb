"""NVIDIA Triton with its Python backend: writes a model repository and becomes the server."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from work import Setup

CONFIG = """
name: "peer"
backend: "python"
max_batch_size: {batch}
input [{{ name: "PICTURE", data_type: TYPE_STRING, dims: [1] }}]
output [{{ name: "ANSWER", data_type: TYPE_STRING, dims: [1] }}]
instance_group [{{ kind: KIND_CPU, count: {workers} }}]
dynamic_batching {{
  max_queue_delay_microseconds: {delay}
  default_queue_policy {{
    timeout_action: REJECT
    default_timeout_microseconds: {timeout}
    max_queue_size: {queue}
  }}
}}
"""


def server_folder() -> Path:
    """Where the PyPI package nvidia-pytriton keeps the server, without importing it and what it depends on."""
    found = importlib.util.find_spec("pytriton")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("nvidia-pytriton is not installed")
    return Path(found.submodule_search_locations[0]) / "tritonserver"


def write_backend(server: Path, folder: Path) -> None:
    """The Python backend with the process for this Python, which the package keeps apart from it."""
    shutil.copytree(server / "backends" / "python", folder / "python")
    stub = server / "python_backend_stubs" / "{}.{}".format(*sys.version_info[:2]) / "triton_python_backend_stub"
    shutil.copy(stub, folder / "python")


def write_model(setup: Setup, folder: Path) -> None:
    version = folder / "peer" / "1"
    version.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("triton_model.py"), version / "model.py")
    delay, timeout = round(setup.delay_ms * 1000), setup.timeout_ms * 1000
    text = CONFIG.format(batch=setup.batch, workers=setup.workers, delay=delay, timeout=timeout, queue=setup.queue)
    (folder / "peer" / "config.pbtxt").write_text(text)


def become_server(port: int, write_models: Callable[[Path], None]) -> NoReturn:
    """Have the repository written and take the server's place in this process."""
    server = server_folder()
    folder = Path(tempfile.mkdtemp(prefix="peer-triton-", dir=os.environ["PEER_FOLDER"]))
    write_backend(server, folder / "backends")
    write_models(folder / "models")
    packages = sysconfig.get_path("purelib")
    libraries = [sysconfig.get_config_var("LIBDIR") or "", f"{packages}/nvidia_pytriton.libs"]
    # Triton's Python ignores PYTHONPATH; it finds its packages by the first `python3` on the path.
    environment = os.environ | {
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
        "PATH": os.pathsep.join((f"{sys.prefix}/bin", os.environ["PATH"])),
    }
    command = [str(server / "bin" / "tritonserver")]
    command += [f"--model-repository={folder / 'models'}", f"--backend-directory={folder / 'backends'}"]
    command += ["--http-address=127.0.0.1", f"--http-port={port}", "--allow-grpc=false", "--allow-metrics=false"]
    command += [
        "--log-info=false",
        "--log-warning=false",
        f"--backend-config=python,shm-region-prefix-name={folder.name}-",
    ]
    os.execve(command[0], command, environment)  # noqa: S606 - the server takes this process's place


if __name__ == "__main__":
    given = Setup.from_environment()
    become_server(given.port, lambda folder: write_model(given, folder))
