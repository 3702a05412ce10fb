"""The model in Triton's repository: one batch of encoded pictures in, one text of JSON per picture out."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import json
import os
import sys
from typing import Any

import numpy as np
import triton_python_backend_utils as backend

sys.path.append(os.environ["PEER_PATH"])  # PYTHONPATH is ignored here

from work import Setup, Work


class TritonPythonModel:
    """One instance, which Triton runs in a process of its own."""

    def initialize(self, arguments: dict[str, str]) -> None:
        self._work = Work(Setup.from_environment())

    def execute(self, requests: list[Any]) -> list[Any]:
        """Triton gives the requests of a batch; each holds one picture."""
        payloads = [backend.get_input_tensor_by_name(request, "PICTURE").as_numpy()[0, 0] for request in requests]
        answers = self._work.answers(payloads)
        return [backend.InferenceResponse([_tensor(answer)]) for answer in answers]


def _tensor(answer: dict[str, Any]) -> Any:
    return backend.Tensor("ANSWER", np.array([[json.dumps(answer).encode()]], np.object_))
