"""The machine as a server sees it: Python, packages, providers, processor, memory, limits."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from parallel_infer.config.schema import ServerConfig
from parallel_infer.errors import ConfigError
from parallel_infer.execution_providers import PROVIDERS
from parallel_infer.machine.cgroups import limits
from parallel_infer.machine.cores import usable_cores
from parallel_infer.machine.processor import CPUINFO, instruction_sets, processor_fields
from parallel_infer.supervisor.memory_report import size_text
from parallel_infer.tools.doctor.findings import Finding

# the dependencies of pyproject.toml; a name with | may be any of several builds of the same thing
PACKAGES = (
    "click",
    "msgpack",
    "msgspec",
    "numpy",
    "onnx",
    "opencv-python-headless|opencv-python|opencv-contrib-python-headless|opencv-contrib-python",
    "prometheus_client",
    "protobuf",
    "pyzmq",
    "rich",
    "setproctitle",
    "simplejpeg",
)
RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimd", "bf16", "i8mm", "sve")
OLDEST_KERNEL = (5, 14)  # the first with MADV_POPULATE_WRITE
FILES_PER_SERVER = 512  # descriptors besides one per client
_NVIDIA = Path("/proc/driver/nvidia/version")


def machine_findings(config: ServerConfig) -> Iterator[Finding]:
    """Everything about the machine, as far as a server of this configuration cares."""
    yield python_finding(sys.version_info[:3])
    yield kernel_finding(platform.release())
    yield from package_findings({name: _version(name) for names in PACKAGES for name in names.split("|")})
    yield from runtime_findings({name: _version(name) for name in RUNTIMES})
    yield from provider_findings(config)
    yield from nvidia_findings()
    yield processor_finding()
    yield cores_finding(os.cpu_count() or 1, usable_cores())
    yield memory_finding(_total_memory(), limits().memory)
    yield files_finding(resource.getrlimit(resource.RLIMIT_NOFILE)[1], config.max_clients)
    yield locked_finding(resource.getrlimit(resource.RLIMIT_MEMLOCK)[0])


def python_finding(version: tuple[int, ...]) -> Finding:
    text = ".".join(map(str, version))
    if (3, 11) <= version < (3, 15):
        return Finding.ok("python", text)
    return Finding.warning("python", f"{text} is not tested", "use Python 3.11 to 3.14")


def kernel_finding(release: str) -> Finding:
    numbers = [int(part) for part in release.split(".")[:2] if part.isdecimal()]
    if tuple(numbers) >= OLDEST_KERNEL:
        return Finding.ok("kernel", release)
    return Finding.warning(
        "kernel", f"{release}: the first pass over each ring is slow", "Linux 5.14 or newer fills rings at start"
    )


def package_findings(versions: dict[str, str | None]) -> Iterator[Finding]:
    """One finding for all that are there, one problem per package that is missing."""
    found = []
    for names in PACKAGES:
        installed = [f"{name} {versions[name]}" for name in names.split("|") if versions[name]]
        found += installed
        name = names.split("|")[0]
        if not installed:
            yield Finding.problem("packages", f"{name} is missing", f"pip install {name}")
        elif len(installed) > 1:
            yield Finding.warning(
                "packages", f"{', '.join(installed)} overwrite each other's files", f"keep one of them, best {name}"
            )
    yield Finding.ok("packages", ", ".join(found))


def runtime_findings(versions: dict[str, str | None]) -> Iterator[Finding]:
    installed = [f"{name} {version}" for name, version in versions.items() if version]
    if not installed:
        yield Finding.problem(
            "onnx runtime", "missing", "pip install 'parallel-infer[cpu]', or 'parallel-infer[gpu]' for NVIDIA GPUs"
        )
    elif len(installed) > 1:
        yield Finding.warning(
            "onnx runtime",
            f"{' and '.join(installed)} overwrite each other's files",
            "uninstall both, then install the one you want again",
        )
    else:
        yield Finding.ok("onnx runtime", installed[0])


def provider_findings(config: ServerConfig) -> Iterator[Finding]:
    """For every provider whether it can be had or what it lacks; a problem only if the configuration asks for it."""
    try:
        from parallel_infer.inference.options import SessionConfig
        from parallel_infer.inference.providers import choose, survey  # first used here: imports ONNX Runtime
    except ImportError as error:
        yield Finding.problem("providers", str(error), "see onnx runtime above")
        return
    asked = {config.provider, *(model.provider for model in config.models.values())}
    for name in ("auto", *PROVIDERS):
        session = SessionConfig(provider=name)
        subject = f"provider {name}"
        try:
            machine = survey(session)
            choice = choose(session, machine)
            if name == "auto" and choice.provider == "cpu" and machine.has_bf16:
                yield Finding.warning(
                    subject,
                    f"{choice.describe()}, but this processor computes in bfloat16, which takes half the time",
                    "pip install openvino",
                )
            else:
                yield Finding.ok(subject, choice.describe())
        except ConfigError as error:
            text = str(error).removeprefix(f"provider = {name}").lstrip(": ")
            if name in asked:
                yield Finding.problem(subject, text, "do that, or configure another provider")
            else:
                yield Finding.ok(subject, f"not here, {text}")


def nvidia_findings(driver: Path = _NVIDIA) -> Iterator[Finding]:
    """The NVIDIA driver, where there is one; a driver that nothing here can use is worth a word."""
    if not driver.exists():
        yield Finding.ok("nvidia driver", "none")
        return
    yield Finding.ok("nvidia driver", driver.read_text().partition("\n")[0].removeprefix("NVRM version: "))
    if _version("onnxruntime-gpu") is None:
        yield Finding.warning(
            "nvidia driver", "a GPU, but an ONNX Runtime that cannot use it", "pip install 'parallel-infer[gpu]'"
        )


def processor_finding(cpuinfo: Path = CPUINFO) -> Finding:
    fields = processor_fields(cpuinfo)
    if not fields:
        return Finding.ok("processor", platform.machine())
    flags = instruction_sets(fields)
    known = " ".join(flag for flag in FLAGS if flag in flags) or "none that matter"
    text = f"{fields.get('model name', platform.machine())}; {known}"
    if platform.machine() == "x86_64" and "avx2" not in flags:
        return Finding.warning("processor", text, "without avx2 models run several times slower")
    return Finding.ok("processor", text)


def cores_finding(present: int, usable: int) -> Finding:
    text = f"{usable} usable of {present}"
    if usable < 2:
        return Finding.warning(
            "cores", text, "stages take turns on one core; give the container or the process more (--cpus, taskset)"
        )
    return Finding.ok("cores", text if usable < present else str(present))


def memory_finding(total: int, limit: int | None) -> Finding:
    """`limit` is that of the container, None without one. Shared memory counts against it too."""
    available = min(total, limit or total)
    text = size_text(total) if limit is None or limit >= total else f"{size_text(limit)} of {size_text(total)}"
    if available < 2 << 30:
        return Finding.warning("memory", text, "every worker takes 100 to 300 MB and its model; start few workers")
    return Finding.ok("memory", text)


def files_finding(limit: int, clients: int) -> Finding:
    """`limit` is the hard one: the server raises its own as far as that."""
    needed = clients + FILES_PER_SERVER
    if limit == resource.RLIM_INFINITY or limit >= needed:
        return Finding.ok("open files", _limit_text(limit))
    return Finding.warning(
        "open files",
        f"at most {limit}, and max_clients = {clients} may need {needed}",
        f"ulimit -n {needed} (in Docker --ulimit nofile={needed}), or lower max_clients",
    )


def locked_finding(limit: int) -> Finding:
    text = "unlimited" if limit == resource.RLIM_INFINITY else size_text(limit)
    return Finding.ok("locked memory", f"{text}; shared memory of the server is not locked and needs none")


def _limit_text(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _total_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
