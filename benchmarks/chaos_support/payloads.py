"""Payloads that carry their own checksum, and a model that gives them back, so that a foreign byte is seen."""

from __future__ import annotations

import zlib
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

Bytes = npt.NDArray[np.uint8]


class Verdict(Enum):
    """What an answer holds."""

    RIGHT = "right"
    FOREIGN = "foreign"  # another job's payload, whole
    TORN = "torn"  # bytes of several jobs, or of none


class Payloads:
    """The payload of each job number: uint8 [size] = number (8 bytes), noise, CRC-32 of all before it (4 bytes)."""

    def __init__(self, size: int, seed: int = 1) -> None:
        self.size = size
        self._noise = np.random.default_rng(seed).integers(0, 256, size + 65536, np.uint8)

    def make(self, number: int) -> Bytes:
        """The payload of a job."""
        start = number * 7919 % 65536
        payload = self._noise[start : start + self.size].copy()
        payload[:8] = np.frombuffer(number.to_bytes(8, "little"), np.uint8)
        payload[-4:] = np.frombuffer(zlib.crc32(payload[:-4].data).to_bytes(4, "little"), np.uint8)
        return payload

    def judge(self, number: int, answer: Any) -> Verdict:
        """Compare the answer of a job byte for byte with what was sent."""
        found = np.frombuffer(answer, np.uint8)
        if np.array_equal(found, self.make(number)):
            return Verdict.RIGHT
        whole = len(found) > 12 and zlib.crc32(found[:-4].data).to_bytes(4, "little") == found[-4:].tobytes()
        return Verdict.FOREIGN if whole else Verdict.TORN


def write_identity_model(path: Path, size: int) -> None:
    """Write a model whose answer y is its input x, uint8 [batch, size]."""
    given = helper.make_tensor_value_info("x", TensorProto.UINT8, ["batch", size])
    answer = helper.make_tensor_value_info("y", TensorProto.UINT8, ["batch", size])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", [given], [answer])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
