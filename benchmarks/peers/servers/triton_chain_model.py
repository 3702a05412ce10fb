"""What leads a request through the chain in Triton's repository: encoded picture in, text of JSON out."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as backend

sys.path.append(os.environ["PEER_PATH"])  # PYTHONPATH is ignored here

from work import Preparation, Setup, in_picture

Array = npt.NDArray[Any]


class TritonPythonModel:
    """One instance, which Triton runs in a process of its own: the more of them, the more requests are under way."""

    def initialize(self, arguments: dict[str, str]) -> None:
        self._setup = Setup.from_environment()
        self._first = Preparation(self._setup)
        self._second = Preparation(self._setup.of_second())

    async def execute(self, requests: list[Any]) -> list[Any]:
        answers = await asyncio.gather(*(self._answer(request) for request in requests))
        texts = [np.array([[json.dumps(answer).encode()]], np.object_) for answer in answers]
        return [backend.InferenceResponse([backend.Tensor("ANSWER", text)]) for text in texts]

    async def _answer(self, request: Any) -> dict[str, Any]:
        picture = backend.get_input_tensor_by_name(request, "PICTURE")
        if self._setup.split:
            decoded = await _asked("decode", picture, "FRAME")  # its memory is that of the frame
            frame = decoded.as_numpy()[0]
        else:
            frame = self._first.frame(picture.as_numpy()[0, 0])
        row = self._first.resized(frame)
        found = (await _asked("detector", backend.Tensor("ROWS", row.pixels[None]), "FOUND")).as_numpy()[0].copy()
        boxes = in_picture(found[:, 2:], row)
        kinds = await self._kinds([self._second.resized(_cut(frame, box)).pixels for box in boxes])
        return {
            "classes": found[:, 0].astype(int).tolist(),
            "scores": found[:, 1].tolist(),
            "boxes": boxes.tolist(),
            "children": [{"classes": one[:, 0].astype(int).tolist(), "scores": one[:, 1].tolist()} for one in kinds],
        }

    async def _kinds(self, crops: list[Array]) -> list[Array]:
        """What the second model says about each, a request for as many as it takes at a time."""
        most = self._setup.batch
        requests = [
            _asked("classifier", backend.Tensor("ROWS", np.stack(crops[start : start + most])), "FOUND")
            for start in range(0, len(crops), most)
        ]
        return [one.copy() for found in await asyncio.gather(*requests) for one in found.as_numpy()]


async def _asked(model: str, tensor: Any, wanted: str) -> Any:
    """The output of another model: a tensor, in whose memory its array lies."""
    request = backend.InferenceRequest(model_name=model, requested_output_names=[wanted], inputs=[tensor])
    response = await request.async_exec()
    if response.has_error():
        raise backend.TritonModelException(response.error().message())
    return backend.get_output_tensor_by_name(response, wanted)


def _cut(frame: Array, box: Array) -> Array:
    """The whole pixels that a box touches."""
    height, width = frame.shape[:2]
    left, top = (min(max(0, math.floor(value)), most - 1) for value, most in zip(box[:2], (width, height), strict=True))
    right, bottom = (min(math.ceil(value), most) for value, most in zip(box[2:], (width, height), strict=True))
    return frame[top : max(bottom, top + 1), left : max(right, left + 1)]
