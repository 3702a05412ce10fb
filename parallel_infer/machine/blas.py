"""How OpenBLAS, which computes NumPy's products, is to run in the processes of a server."""

from __future__ import annotations

from collections.abc import Mapping

from parallel_infer.machine.processor import instruction_sets

_KERNELS = "OPENBLAS_CORETYPE"
_AVX512 = frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})  # what its kernels are built with


def blas_environment(given: Mapping[str, str], processor: dict[str, str]) -> dict[str, str]:
    """Variables for a process, where `given` are those that it has and `processor` is from `processor_fields`.

    One thread: NumPy's products start one per core otherwise, and here the processes are the parallelism. OpenBLAS
    takes the kernels of 2013's processors for any that it does not know by its number; AMD's have AVX-512 in newer ones
    too (resizing with antialiasing takes two thirds of the time with it).
    """
    variables = {"OPENBLAS_NUM_THREADS": "1"}
    amd = processor.get("vendor_id") == "AuthenticAMD"
    if amd and instruction_sets(processor) >= _AVX512 and _KERNELS not in given:
        variables[_KERNELS] = "SkylakeX"
    return variables
