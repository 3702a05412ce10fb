"""From logits to scores of 0 to 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def sigmoid(logits: Floats) -> Floats:
    """Each number on its own, float32."""
    with np.errstate(over="ignore"):  # exp(-x) overflows to infinity, whose reciprocal is the right 0
        return np.asarray(1.0 / (1.0 + np.exp(-logits)), np.float32)


def softmax(logits: npt.NDArray[Any]) -> Floats:
    """Softmax over the last axis, float32, stable for large values."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)
