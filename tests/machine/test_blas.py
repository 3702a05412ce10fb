"""OpenBLAS in the processes of a server."""

from __future__ import annotations

import pytest

from parallel_infer.machine.blas import blas_environment

AVX512 = "sse2 avx2 avx512f avx512dq avx512cd avx512bw avx512vl"


def test_new_processors_of_amd_get_kernels_of_their_instructions():
    found = blas_environment({}, {"vendor_id": "AuthenticAMD", "flags": AVX512})
    assert found == {"OPENBLAS_NUM_THREADS": "1", "OPENBLAS_CORETYPE": "SkylakeX"}


@pytest.mark.parametrize(
    "processor",
    [
        {"vendor_id": "GenuineIntel", "flags": AVX512},  # known to OpenBLAS
        {"vendor_id": "AuthenticAMD", "flags": "sse2 avx2"},
        {"vendor_id": "AuthenticAMD", "flags": "sse2 avx2 avx512f"},
        {"Features": "asimd"},
        {},
    ],
)
def test_others_choose_themselves(processor):
    assert blas_environment({}, processor) == {"OPENBLAS_NUM_THREADS": "1"}


def test_a_choice_of_the_user_stays():
    given = {"OPENBLAS_CORETYPE": "Haswell"}
    assert "OPENBLAS_CORETYPE" not in blas_environment(given, {"vendor_id": "AuthenticAMD", "flags": AVX512})
