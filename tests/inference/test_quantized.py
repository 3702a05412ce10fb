"""Quantized graphs are computed as they are written, whatever provider is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from parallel_infer.inference.options import SessionConfig
from parallel_infer.inference.quantized import MOST_DEVIATION, deviation, is_quantized
from parallel_infer.inference.session import Session
from parallel_infer.inference.signature import DeclaredTensor, Signature

_LAYERS = ["Conv", "MatMul", "Gemm", "ConvTranspose"]

Array = npt.NDArray[Any]


class _Noise(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime ships no types
    def __init__(self, session: Session) -> None:
        self._inputs: Iterator[dict[str, Array]] = iter([picture_for(session)])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._inputs, None)


def picture_for(session: Session) -> dict[str, Array]:
    random = np.random.default_rng(0)
    return {tensor.name: random.random((1, *tensor.shape), np.float32) for tensor in session.inputs}


@pytest.fixture(scope="module")
def signed(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The detector with activations in int8 behind its concatenations, as exporters for accelerators write it."""
    path = tmp_path_factory.mktemp("signed") / "detector.onnx"
    quantize_static(
        zoo / "detector.onnx",
        path,
        _Noise(Session(zoo / "detector.onnx", SessionConfig(provider="cpu"))),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=_LAYERS,
        extra_options={"ActivationSymmetric": True, "OpTypesToExcludeOutputQuantization": _LAYERS},
    )
    return path


def test_a_quantized_detector_answers_the_same_on_the_chosen_provider(signed: Path) -> None:
    assert is_quantized(str(signed))
    written, chosen = Session(signed, SessionConfig(provider="cpu")), Session(signed)
    picture = picture_for(written)
    (expected,), (found,) = written.run(picture).values(), chosen.run(picture).values()
    assert np.median(np.abs(found - expected)) < 0.1 * np.median(np.abs(expected))
    assert abs(found[0, 4:].max() - expected[0, 4:].max()) < 0.2 * expected[0, 4:].max()  # the best score


def test_graphs_that_are_not_quantized_are_told_apart(zoo: Path, signed: Path) -> None:
    assert not is_quantized(str(zoo / "detector.onnx"))
    assert not is_quantized((zoo / "detector.onnx").read_bytes())
    assert is_quantized(signed.read_bytes())


def signature(*shape: int | str) -> Signature:
    tensors = [DeclaredTensor("x", np.dtype(np.float32), shape), DeclaredTensor("y", np.dtype(np.float32), shape)]
    return Signature((tensors[0],), (tensors[1],))


def test_deviation_is_that_of_the_channels_and_not_of_the_largest_numbers() -> None:
    """Boxes are hundreds of pixels and scores less than 1; wrong scores count all the same."""

    def written(inputs: Any) -> Sequence[Array]:
        x = inputs["x"]
        return [np.concatenate([x[:, :1] * 400, x[:, 1:] / 255], axis=1)]

    def wrong(inputs: Any) -> Sequence[Array]:
        (expected,) = written(inputs)
        return [np.concatenate([expected[:, :1], expected[:, 1:] * 0.1], axis=1)]

    shape = signature("batch", 6, 40, 40)
    assert deviation(shape, written, written) == 0
    assert deviation(shape, wrong, written) > MOST_DEVIATION
    assert deviation(shape, lambda inputs: [written(inputs)[0] * 1.05], written) < 0.2


def test_deviation_of_values_that_are_not_finite_is_infinite() -> None:
    shape = signature(1, 3, 8, 8)
    assert deviation(shape, lambda inputs: [np.full_like(inputs["x"], np.nan)], lambda inputs: [inputs["x"]]) == np.inf
