"""A model of the chain in Triton's repository: resized pictures in, what was found in each out."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import json
import os
import sys
from typing import Any

import numpy as np
import triton_python_backend_utils as backend

sys.path.append(os.environ["PEER_PATH"])  # PYTHONPATH is ignored here

from work import VARIABLE, Row, Setup, Work


class TritonPythonModel:
    """One instance, which Triton runs in a process of its own."""

    def initialize(self, arguments: dict[str, str]) -> None:
        parameters = json.loads(arguments["model_config"])["parameters"]
        self._work = Work(Setup(**json.loads(parameters[VARIABLE]["string_value"])))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Triton gives the requests of a batch; each holds the pictures of one caller, uint8 [n, h, w, 3] BGR.

        Answers are float32 [n, found, columns]: class, score and, of detections, the box in pixels of the row.
        """
        given = [backend.get_input_tensor_by_name(request, "ROWS").as_numpy() for request in requests]
        answers = iter(
            self._work.answers_to_rows([Row(pixels, (1.0, 1.0), (0.0, 0.0)) for rows in given for pixels in rows])
        )
        return [backend.InferenceResponse([_tensor([next(answers) for _ in rows])]) for rows in given]


def _tensor(answers: list[dict[str, Any]]) -> Any:
    columns = [
        np.column_stack(
            [
                answer["classes"],
                answer["scores"],
                *([np.reshape(answer["boxes"], (-1, 4))] if "boxes" in answer else ()),
            ]
        )
        for answer in answers
    ]
    return backend.Tensor("FOUND", np.stack(columns).astype(np.float32))
