"""Decoding as a model of its own in Triton's repository: an encoded picture in, its frame out."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import os
import sys
from typing import Any

import triton_python_backend_utils as backend

sys.path.append(os.environ["PEER_PATH"])  # PYTHONPATH is ignored here

from work import Preparation, Setup


class TritonPythonModel:
    """One instance, which Triton runs in a process of its own."""

    def initialize(self, arguments: dict[str, str]) -> None:
        self._preparation = Preparation(Setup.from_environment())

    def execute(self, requests: list[Any]) -> list[Any]:
        payloads = [backend.get_input_tensor_by_name(request, "PICTURE").as_numpy()[0, 0] for request in requests]
        frames = [self._preparation.frame(payload) for payload in payloads]
        return [backend.InferenceResponse([backend.Tensor("FRAME", frame[None])]) for frame in frames]
