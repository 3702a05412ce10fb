"""Which execution provider of ONNX Runtime runs a model, and with which options.

Three steps, so that the decision can be tested on any machine: `survey` looks at this machine, `choose` decides (pure),
`session_options` and `provider_list` say it to ONNX Runtime. What cannot be had is a `ConfigError` that says what is
missing and what to install.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from parallel_infer.errors import ConfigError
from parallel_infer.execution_providers import ON_GPU, ProviderName
from parallel_infer.inference.options import GraphOptimization, SessionConfig
from parallel_infer.inference.ort import ort
from parallel_infer.machine.processor import instruction_sets, processor_fields
from parallel_infer.model_spec import PrecisionName

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"
ORT_NAMES: dict[ProviderName, str] = {"cpu": CPU, "openvino": OPENVINO, "cuda": CUDA, "tensorrt": TENSORRT}
_FASTEST_FIRST: tuple[ProviderName, ...] = ("cuda", "openvino", "cpu")
_BF16_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})
_OPENVINO_PACKAGE = "onnxruntime_ep_openvino"
_TENSORRT = ("libnvinfer.so.10", "libnvonnxparser.so.10")  # what ONNX Runtime's provider is linked against
_TENSORRT_PACKAGE = "tensorrt_libs"
_LEVELS = {
    GraphOptimization.NONE: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    GraphOptimization.BASIC: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    GraphOptimization.EXTENDED: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    GraphOptimization.ALL: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


class OpenVino(Enum):
    """The state of OpenVINO on a machine."""

    ABSENT = "absent"  # the package is not installed
    NO_DEVICE = "no device"  # only its plugin for ONNX Runtime is installed, which takes Intel processors alone
    PLUGIN = "plugin"  # ONNX Runtime reaches it
    RUNTIME = "runtime"  # its own runtime is installed, and has to be called directly


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What matters of a machine: processor flags, providers inside ONNX Runtime, NVIDIA devices, OpenVINO, TensorRT."""

    flags: frozenset[str]
    providers: frozenset[str]
    gpus: int
    openvino: OpenVino
    has_tensorrt: bool = False  # its libraries load; ONNX Runtime lists the provider without them too

    @property
    def has_bf16(self) -> bool:
        return bool(_BF16_FLAGS & self.flags)


@dataclass(frozen=True, slots=True)
class Choice:
    """The provider taken, never "auto", and the precision it computes in.

    `direct`: OpenVINO's own runtime computes, not ONNX Runtime, whose plugin does not take this processor.
    """

    provider: ProviderName
    precision: PrecisionName
    device: str
    direct: bool = False

    def describe(self) -> str:
        """One line for start-up and status, such as "openvino bf16 (cpu)" or "cuda fp32 (gpu 0)"."""
        return f"{self.provider} {self.precision} ({self.device})"


ON_CPU = Choice("cpu", "fp32", "cpu")


def survey(config: SessionConfig) -> Machine:
    """This machine. Looks only where `config` could lead, because loading OpenVINO or CUDA takes time and memory."""
    flags = _processor_flags()
    providers = frozenset(ort.get_available_providers())
    gpu_possible = (config.provider == "auto" or config.provider in ON_GPU) and CUDA in providers
    openvino_possible = config.provider == "openvino" or (config.provider == "auto" and _BF16_FLAGS & flags)
    return Machine(
        flags=flags,
        providers=providers,
        gpus=_count_gpus() if gpu_possible else 0,
        openvino=_find_openvino() if openvino_possible else OpenVino.ABSENT,
        has_tensorrt=config.provider == "tensorrt" and gpu_possible and _load_tensorrt(),
    )


def choose(config: SessionConfig, machine: Machine) -> Choice:
    """The provider and precision for `config`, or a `ConfigError` that says what is missing.

    "auto" is the fastest that fits: CUDA where a device answers; else OpenVINO, which takes half the time of the
    default CPU provider where the processor computes in bfloat16 and is no faster in float32; else CPU.
    """
    candidates = _FASTEST_FIRST if config.provider == "auto" else (config.provider,)
    reasons = []
    for provider in candidates:
        reason = _obstacle(provider, config, machine)
        if reason is None:
            direct = provider == "openvino" and machine.openvino is OpenVino.RUNTIME
            return Choice(provider, _precision(provider, config, machine), _device(provider, config), direct)
        reasons.append(reason)
    raise ConfigError("; ".join(reasons))


def session_options(config: SessionConfig, choice: Choice) -> ort.SessionOptions:
    """Options of a session: explicit threads, none of which spins, and the OpenVINO plugin where it was chosen."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1 if choice.provider == "openvino" else config.thread_count
    options.inter_op_num_threads = config.inter_threads
    if config.inter_threads > 1:
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.graph_optimization_level = _LEVELS[config.optimization]
    options.enable_cpu_mem_arena = config.cpu_arena
    options.enable_mem_pattern = config.memory_pattern
    options.log_severity_level = 4  # what goes wrong is raised, so ONNX Runtime need not print it too
    if config.profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = config.profile
    if choice.provider == "openvino":
        options.add_provider_for_devices(_openvino_devices()[:1], openvino_options(config, choice))
    return options


def provider_list(
    config: SessionConfig, choice: Choice, cuda_stream: int | None = None
) -> list[tuple[str, dict[str, str]]] | None:
    """What `InferenceSession(providers=)` wants; None where the session options name the provider already."""
    if choice.provider == "openvino":
        return None
    chain: list[tuple[str, dict[str, str]]] = [(CPU, {})]
    if choice.provider in ON_GPU:
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()  # finds CUDA and cuDNN where pip put them
        chain.insert(0, (CUDA, cuda_options(config, cuda_stream)))
    if choice.provider in OPTIONS:
        chain.insert(0, (ORT_NAMES[choice.provider], OPTIONS[choice.provider](config, choice)))
    return chain


def openvino_options(config: SessionConfig, choice: Choice) -> dict[str, str]:
    """Options of the OpenVINO plugin, which reads one JSON map per device and ignores the older flat names."""
    return {"load_config": json.dumps({"CPU": openvino_device_options(config, choice)})}


def openvino_device_options(config: SessionConfig, choice: Choice) -> dict[str, str]:
    """What OpenVINO is told about the processor.

    The precision is always said: left alone, OpenVINO takes bfloat16 wherever the processor has it. Threads stay
    unpinned, because every process would pin its own to the same first cores.
    """
    device = {
        "INFERENCE_PRECISION_HINT": "bf16" if choice.precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": str(config.thread_count),
        "NUM_STREAMS": str(config.streams),
        "ENABLE_CPU_PINNING": "NO",
    }
    if config.cache is not None:
        device["CACHE_DIR"] = _made(config.cache)
    return device


def cuda_options(config: SessionConfig, stream: int | None = None) -> dict[str, str]:
    """Options of the CUDA provider. Precision "auto" lets float32 multiply as TensorFloat-32, "fp32" does not.

    `stream` is where the provider is to put all its work, for those who put work of their own around it.
    The algorithm of a convolution is picked by rule, not by trying all: every new batch size would be tried again.
    """
    options = {
        "device_id": str(config.device),
        "arena_extend_strategy": config.arena_strategy.value,
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "0" if config.precision == "fp32" else "1",
    }
    if stream is not None:
        options["user_compute_stream"] = str(stream)
        if config.cuda_graphs:
            options["enable_cuda_graph"] = "1"
    if config.gpu_mem_limit is not None:
        options["gpu_mem_limit"] = str(config.gpu_mem_limit)
    return options


def tensorrt_options(config: SessionConfig, choice: Choice) -> dict[str, str]:
    """Options of the TensorRT provider; with a cache, engines are built once per model, GPU and version."""
    options = {
        "device_id": str(config.device),
        "trt_fp16_enable": str(choice.precision == "fp16"),
        "trt_bf16_enable": str(choice.precision == "bf16"),
    }
    if config.gpu_mem_limit is not None:
        options["trt_max_workspace_size"] = str(config.gpu_mem_limit)
    if config.cache is not None:
        directory = _made(config.cache)
        options |= {"trt_engine_cache_enable": "True", "trt_engine_cache_path": directory}
        options |= {"trt_timing_cache_enable": "True", "trt_timing_cache_path": directory}
    return options


OPTIONS: dict[ProviderName, Callable[[SessionConfig, Choice], dict[str, str]]] = {"tensorrt": tensorrt_options}
"""Of the providers that are put in front of the CPU provider, and on a GPU in front of CUDA, and want nothing else."""


def _obstacle(provider: ProviderName, config: SessionConfig, machine: Machine) -> str | None:
    """Why `provider` cannot be had, in words that say what to do; None where it can."""
    if provider == "openvino":
        return _openvino_obstacle(config, machine)
    if provider in ON_GPU:
        return _gpu_obstacle(provider, config, machine)
    if provider != "cpu" and ORT_NAMES[provider] not in machine.providers:
        return f"provider = {provider} needs a build of ONNX Runtime that has it, and this one has not"
    if config.precision in ("bf16", "fp16"):
        wanted = "openvino" if config.precision == "bf16" else "tensorrt"
        return f"provider = {provider} computes in fp32; for precision = {config.precision} use provider = {wanted}"
    return None


def _openvino_obstacle(config: SessionConfig, machine: Machine) -> str | None:
    if config.precision == "fp16":
        return "provider = openvino computes in fp32 or bf16; for precision = fp16 use provider = tensorrt"
    if config.precision == "bf16" and not machine.has_bf16:
        return "precision = bf16 needs a processor with amx_bf16 or avx512_bf16, and this one has neither; use fp32"
    if config.provider == "auto" and not machine.has_bf16:
        return "provider = openvino is not faster than cpu on a processor without bfloat16"
    if config.provider == "auto" and config.precision == "fp32":
        return "provider = openvino is not faster than cpu in fp32"
    if machine.openvino is OpenVino.ABSENT:
        return "provider = openvino needs a package that is missing: pip install openvino"
    if machine.openvino is OpenVino.NO_DEVICE:
        return "provider = openvino: its plugin for ONNX Runtime takes Intel processors only: pip install openvino"
    if machine.openvino is OpenVino.RUNTIME and config.profile is not None:
        return "profile = ... is written by ONNX Runtime, which provider = openvino does not use on this processor"
    return None


def _gpu_obstacle(provider: ProviderName, config: SessionConfig, machine: Machine) -> str | None:
    if ORT_NAMES[provider] not in machine.providers:
        return f"provider = {provider} needs another build of ONNX Runtime: pip install 'parallel-infer[gpu]'"
    if machine.gpus == 0:
        return f"provider = {provider}: no NVIDIA GPU answers; try nvidia-smi, and --gpus all for a container"
    if config.device >= machine.gpus:
        return f"device = {config.device}, but the GPUs here are 0 to {machine.gpus - 1}"
    if provider == "tensorrt" and not machine.has_tensorrt:
        names = " and ".join(_TENSORRT)
        return f"provider = tensorrt: {names} do not load; pip install tensorrt, or put them on the library path"
    if provider == "cuda" and config.precision in ("bf16", "fp16"):
        return f"provider = cuda computes as the model says; for {config.precision} convert it or use tensorrt"
    return None


def _precision(provider: ProviderName, config: SessionConfig, machine: Machine) -> PrecisionName:
    if config.precision != "auto":
        return config.precision
    return "bf16" if provider == "openvino" and machine.has_bf16 else "fp32"


def _device(provider: ProviderName, config: SessionConfig) -> str:
    return f"gpu {config.device}" if provider in ON_GPU else "cpu"


def _made(directory: Path) -> str:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cache = {str(directory)!r} cannot be made: {error.strerror}") from error
    return str(directory)


def _processor_flags() -> frozenset[str]:
    """Flags of the processor ("Features" on ARM); empty where nothing tells."""
    return instruction_sets(_processor())


def _is_intel() -> bool:
    return _processor().get("vendor_id") == "GenuineIntel"


@functools.cache
def _processor() -> dict[str, str]:
    return processor_fields()


@functools.cache
def _count_gpus() -> int:
    """How many NVIDIA devices the driver reports; 0 without a driver."""
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
            return 0
    except OSError:
        return 0
    return count.value


@functools.cache
def _load_tensorrt() -> bool:
    """Load TensorRT, from where pip puts it or from the library path, so that ONNX Runtime finds it loaded."""
    package = importlib.util.find_spec(_TENSORRT_PACKAGE)
    folders = [Path(folder) for folder in package.submodule_search_locations or ()] if package else []
    for name in _TENSORRT:
        places = [str(folder / name) for folder in folders if (folder / name).is_file()]
        try:
            ctypes.CDLL((*places, name)[0], ctypes.RTLD_GLOBAL)
        except OSError:
            return False
    return True


@functools.cache
def _find_openvino() -> OpenVino:
    """The plugin where it offers this processor, else the runtime. Loads the plugin only where that may be so."""
    has_runtime, has_plugin = (importlib.util.find_spec(name) is not None for name in ("openvino", _OPENVINO_PACKAGE))
    if has_plugin and (_is_intel() or not has_runtime) and _openvino_devices():
        return OpenVino.PLUGIN
    if has_runtime:
        return OpenVino.RUNTIME
    return OpenVino.NO_DEVICE if has_plugin else OpenVino.ABSENT


@functools.cache
def _openvino_devices() -> list[Any]:
    """The processor as OpenVINO offers it, at most one entry. Registers the plugin, once per process."""
    plugin = importlib.import_module(_OPENVINO_PACKAGE)
    try:
        ort.register_execution_provider_library(OPENVINO, plugin.get_library_path())
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        if "already registered" not in str(error):
            raise ConfigError("provider = openvino: its plugin does not load into this ONNX Runtime") from error
    devices = [device for device in ort.get_ep_devices() if device.ep_name == OPENVINO]
    return [device for device in devices if device.ep_metadata.get("ov_device") == "CPU"]
