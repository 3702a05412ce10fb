"""Which provider is taken on which machine, and what it is told. The machines are made up; one test asks this one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from parallel_infer.errors import ConfigError
from parallel_infer.inference.options import ArenaStrategy, SessionConfig
from parallel_infer.inference.ort import ort
from parallel_infer.inference.providers import (
    CPU,
    CUDA,
    TENSORRT,
    Choice,
    Machine,
    OpenVino,
    choose,
    cuda_options,
    openvino_options,
    provider_list,
    session_options,
    survey,
    tensorrt_options,
)
from parallel_infer.inference.session import Session
from tests.inference import session_models as models

PLAIN = Machine(flags=frozenset({"avx2", "avx512f"}), providers=frozenset({CPU}), gpus=0, openvino=OpenVino.NO_DEVICE)
BF16 = replace(PLAIN, flags=PLAIN.flags | {"avx512_bf16"}, openvino=OpenVino.PLUGIN)
AMX = replace(BF16, flags=BF16.flags | {"amx_bf16"})
GPU = replace(AMX, providers=frozenset({CPU, CUDA, TENSORRT}), gpus=2, has_tensorrt=True)


@pytest.mark.parametrize(
    ("machine", "values", "taken"),
    [
        (PLAIN, {}, "cpu fp32 (cpu)"),
        (replace(PLAIN, openvino=OpenVino.PLUGIN), {}, "cpu fp32 (cpu)"),  # float32 is no faster with OpenVINO
        (BF16, {}, "openvino bf16 (cpu)"),
        (replace(BF16, openvino=OpenVino.RUNTIME), {}, "openvino bf16 (cpu)"),
        (replace(BF16, openvino=OpenVino.RUNTIME), {"profile": "p"}, "cpu fp32 (cpu)"),  # ONNX Runtime writes it
        (AMX, {}, "openvino bf16 (cpu)"),
        (replace(AMX, openvino=OpenVino.ABSENT), {}, "cpu fp32 (cpu)"),
        (GPU, {}, "cuda fp32 (gpu 0)"),
        (replace(GPU, gpus=0), {}, "openvino bf16 (cpu)"),  # the GPU build of ONNX Runtime on a machine without
        (GPU, {"device": 1}, "cuda fp32 (gpu 1)"),
        (GPU, {"provider": "cpu"}, "cpu fp32 (cpu)"),
        (GPU, {"provider": "openvino"}, "openvino bf16 (cpu)"),
        (GPU, {"provider": "openvino", "precision": "fp32"}, "openvino fp32 (cpu)"),
        (GPU, {"provider": "tensorrt", "precision": "fp16"}, "tensorrt fp16 (gpu 0)"),
        (AMX, {"precision": "fp32"}, "cpu fp32 (cpu)"),
        (GPU, {"precision": "bf16"}, "openvino bf16 (cpu)"),  # the fastest that has the precision asked for
        (BF16, {"precision": "bf16"}, "openvino bf16 (cpu)"),
        (BF16, {"provider": "openvino"}, "openvino bf16 (cpu)"),
        (replace(PLAIN, openvino=OpenVino.PLUGIN), {"provider": "openvino"}, "openvino fp32 (cpu)"),
    ],
)
def test_the_fastest_that_fits_is_taken(machine: Machine, values, taken):
    assert choose(SessionConfig(**values), machine).describe() == taken


@pytest.mark.parametrize(
    ("machine", "values", "text"),
    [
        (PLAIN, {"provider": "openvino"}, "Intel processors only: pip install openvino"),
        (replace(PLAIN, openvino=OpenVino.ABSENT), {"provider": "openvino"}, "is missing: pip install openvino"),
        (replace(BF16, openvino=OpenVino.RUNTIME), {"provider": "openvino", "profile": "p"}, "ONNX Runtime"),
        (PLAIN, {"provider": "cuda"}, r"pip install 'parallel-infer\[gpu\]'"),
        (replace(GPU, providers=frozenset({CPU, CUDA})), {"provider": "tensorrt"}, "another build"),
        (replace(GPU, has_tensorrt=False), {"provider": "tensorrt"}, "libnvinfer.* do not load; pip install tensorrt"),
        (replace(GPU, gpus=0), {"provider": "cuda"}, "nvidia-smi"),
        (GPU, {"provider": "cuda", "device": 2}, "device = 2, but the GPUs here are 0 to 1"),
        (GPU, {"provider": "cuda", "precision": "fp16"}, "tensorrt"),
        (GPU, {"provider": "cpu", "precision": "bf16"}, "provider = openvino"),
        (GPU, {"provider": "cpu", "precision": "fp16"}, "provider = tensorrt"),
        (GPU, {"provider": "openvino", "precision": "fp16"}, "fp32 or bf16"),
        (replace(PLAIN, openvino=OpenVino.PLUGIN), {"provider": "openvino", "precision": "bf16"}, "amx_bf16"),
        (PLAIN, {"precision": "bf16"}, "bf16 needs a processor .*; provider = cpu computes in fp32"),
    ],
)
def test_what_cannot_be_had_says_what_is_missing(machine: Machine, values, text):
    with pytest.raises(ConfigError, match=text):
        choose(SessionConfig(**values), machine)


def test_openvino_is_told_precision_threads_streams_and_cache(tmp_path: Path):
    config = SessionConfig(provider="openvino", threads=3, streams=2, cache=tmp_path / "new" / "cache")
    options = openvino_options(config, Choice("openvino", "bf16", "cpu"))
    device = json.loads(options["load_config"])["CPU"]
    assert device["INFERENCE_PRECISION_HINT"] == "bf16"
    assert (device["INFERENCE_NUM_THREADS"], device["NUM_STREAMS"]) == ("3", "2")
    assert Path(device["CACHE_DIR"]).is_dir()
    exact = json.loads(openvino_options(SessionConfig(), Choice("openvino", "fp32", "cpu"))["load_config"])["CPU"]
    assert exact["INFERENCE_PRECISION_HINT"] == "f32"  # unsaid, it would be bf16 wherever the processor has it
    assert "CACHE_DIR" not in exact


def test_a_cache_that_cannot_be_made_is_an_error(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cache"):
        openvino_options(SessionConfig(cache=tmp_path / "file" / "cache"), Choice("openvino", "fp32", "cpu"))


def test_cuda_is_told_device_memory_and_precision():
    config = SessionConfig(device=1, gpu_mem_limit=1 << 30, arena_strategy=ArenaStrategy.SAME_AS_REQUESTED)
    options = cuda_options(config)
    assert options["device_id"] == "1"
    assert options["gpu_mem_limit"] == str(1 << 30)
    assert options["arena_extend_strategy"] == "kSameAsRequested"
    assert options["use_tf32"] == "1"
    assert cuda_options(SessionConfig(precision="fp32"))["use_tf32"] == "0"
    assert "gpu_mem_limit" not in cuda_options(SessionConfig())
    own_stream = {"user_compute_stream": "77"}
    assert cuda_options(SessionConfig(cuda_graphs=False), stream=77) == cuda_options(SessionConfig()) | own_stream
    assert cuda_options(SessionConfig(), stream=77) == cuda_options(SessionConfig()) | own_stream | {
        "enable_cuda_graph": "1"
    }


def test_tensorrt_is_told_precision_and_cache_and_falls_back_to_cuda(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(ort, "preload_dlls", lambda: None, raising=False)
    config, choice = SessionConfig(cache=tmp_path / "engines"), Choice("tensorrt", "fp16", "gpu 0")
    options = tensorrt_options(config, choice)
    assert (options["trt_fp16_enable"], options["trt_bf16_enable"]) == ("True", "False")
    assert options["trt_engine_cache_path"] == options["trt_timing_cache_path"] == str(tmp_path / "engines")
    assert [name for name, _ in provider_list(config, choice) or []] == [TENSORRT, CUDA, CPU]


def test_parallel_execution_only_with_threads_for_it():
    choice = Choice("cpu", "fp32", "cpu")
    modes = [session_options(SessionConfig(inter_threads=n), choice).execution_mode for n in (1, 2)]
    assert modes == [ort.ExecutionMode.ORT_SEQUENTIAL, ort.ExecutionMode.ORT_PARALLEL]


def test_this_machine_runs_something():
    config = SessionConfig(threads=1)
    taken = choose(config, survey(config))
    session = Session(models.identity(), config)
    assert session.choice == taken
    x = np.ones((2, 8), np.float32)
    np.testing.assert_array_equal(session.run({"x": x})["y"], x)


def _cannot(provider: str) -> str | None:
    config = SessionConfig(provider=provider)  # type: ignore[arg-type]
    try:
        choose(config, survey(config))
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "provider",
    ["openvino", pytest.param("cuda", marks=pytest.mark.gpu), pytest.param("tensorrt", marks=pytest.mark.gpu)],
)
def test_a_real_device_answers_like_the_cpu_and_sees_new_input_without_a_new_binding(
    provider, zoo: Path, tmp_path: Path
):
    if (obstacle := _cannot(provider)) is not None:
        pytest.skip(obstacle)
    random = np.random.default_rng(3)
    images = random.random((2, 3, 224, 224), dtype=np.float32)
    reference = Session(zoo / "classifier.onnx", SessionConfig(provider="cpu"))
    session = Session(
        zoo / "classifier.onnx", SessionConfig(provider=provider, precision="fp32", cache=tmp_path / "cache")
    )
    probabilities = np.zeros((2, 1000), np.float32)
    binding = session.bind({"images": images}, {"probs": probabilities})
    for _ in range(2):
        assert binding.run()["probs"] is probabilities
        np.testing.assert_allclose(probabilities, reference.run({"images": images})["probs"], atol=1e-3)
        images[:] = random.random(images.shape, dtype=np.float32) * 2
