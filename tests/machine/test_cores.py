"""How models share the cores when nobody says so."""

from __future__ import annotations

import sys

import pytest

from parallel_infer.machine.cores import Split, default_decode_workers, has_gpu, split_cores, visible_gpus


@pytest.mark.parametrize(
    ("cores", "models", "expected"),
    [
        (1, 1, Split(1, 1, 1)),
        (2, 1, Split(2, 1, 2)),
        (2, 2, Split(1, 2, 2)),
        (2, 4, Split(1, 2, 2)),
        (4, 1, Split(2, 2, 4)),
        (8, 2, Split(2, 4, 8)),
        (16, 1, Split(4, 4, 8)),
        (64, 1, Split(16, 4, 8)),
    ],
)
def test_cores_are_split_by_models(cores, models, expected):
    assert split_cores(cores, models, gpus=0) == expected


@pytest.mark.parametrize("driver", [False, True])
@pytest.mark.parametrize("build", [False, True])
def test_a_gpu_counts_where_onnx_runtime_was_built_for_it(driver, build, tmp_path, monkeypatch):
    package = tmp_path / "onnxruntime"
    (package / "capi").mkdir(parents=True)
    (package / "__init__.py").touch()
    if build:
        (package / "capi" / "libonnxruntime_providers_cuda.so").touch()
    if driver:
        (tmp_path / "version").touch()
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert has_gpu(tmp_path / "version") == (driver and build)


def test_each_gpu_gets_one_instance():
    assert split_cores(16, 1, gpus=1) == Split(1, 16, 16)
    assert split_cores(16, 20, gpus=2) == Split(2, 8, 8)


def test_gpus_are_counted_by_their_device_files_or_as_cuda_is_told(tmp_path):
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "sda"):
        (tmp_path / name).touch()
    assert visible_gpus(tmp_path, {}) == 2
    assert visible_gpus(tmp_path, {"CUDA_VISIBLE_DEVICES": "1"}) == 1
    assert visible_gpus(tmp_path / "none", {}) == 0


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"instances": 1}, Split(1, 8, 8)),
        ({"instances": 4}, Split(4, 2, 8)),
        ({"threads": 2}, Split(2, 2, 2)),
        ({"instances": 3, "threads": 1}, Split(3, 1, 1)),
        ({"instances": 3, "threads": 1, "alone_threads": 4}, Split(3, 1, 4)),
    ],
)
def test_what_was_asked_for_stays(asked, expected):
    assert split_cores(8, 1, gpus=0, **asked) == expected


@pytest.mark.parametrize(
    ("cores", "on_gpu", "expected"),
    [(1, False, 1), (2, False, 1), (16, False, 8), (1, True, 1), (2, True, 1), (4, True, 3), (16, True, 14)],
)
def test_decoding_gets_most_of_the_cores_where_a_gpu_computes(cores, on_gpu, expected):
    assert default_decode_workers(cores, on_gpu) == expected
