"""Frigate's ZeroMQ detector: its plugin connects as REQ and speaks the frames of its reference detector.

An inference names no model: it is that of the connection's last model request, else the first detector. Rows of the
answer are [class, score, y_min, x_min, y_max, x_max], fractions of the picture, float32 [20, 6], best first, zeros
behind. More than 200 ms late the plugin takes zeros and connects anew, so a model request is cheap and idempotent.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import PurePath
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from parallel_infer.answers.answer import Answer
from parallel_infer.client.requests import encode_options
from parallel_infer.doors.frigate_uploads import Uploads
from parallel_infer.doors.gateway_link import GatewayLink, Work
from parallel_infer.doors.model_view import ModelView
from parallel_infer.doors.zmq_door import Response, json_of
from parallel_infer.errors import BadInput, InferError, UnknownModel
from parallel_infer.protocol import Tensor

ROWS = 20  # objects of an answer
CONFIDENCE = 0.4
_TIMEOUT = 0.5  # seconds; the plugin waits 0.2, and what comes later still tells that the model works
_MOST_CONNECTIONS = 4096  # whose last model request is remembered
_encode = msgspec.json.Encoder().encode

Array = npt.NDArray[Any]


class Frigate:
    """Answers the plugin's requests."""

    def __init__(self, link: GatewayLink, uploads: Uploads) -> None:
        self._link = link
        self._uploads = uploads
        self._asked: OrderedDict[bytes, str] = OrderedDict()  # model by connection, the latest last

    async def respond(self, client: bytes, frames: list[Any]) -> Response:
        """The reply to one request."""
        try:
            header = _header(frames[0].bytes)
            request, data = _flag(header, "model_request"), _flag(header, "model_data")
            name = header.get("model_name", "")
            if (request or data) and not isinstance(name, str):
                raise BadInput(f"model_name is {str(name)[:40]!r}; a text is needed")
        except InferError as error:
            return _nothing(error)
        if request:
            return Response([_encode(await self._request(client, name))])
        if data:
            return await self._upload(client, name, frames)
        try:
            return Response(await self._infer(client, header, frames))
        except InferError as error:
            return _nothing(error)

    async def _request(self, client: bytes, file: str) -> dict[str, bool]:
        """Whether the model is there; the connection's inferences mean it from now on."""
        name = PurePath(file).stem
        try:
            served = (await self._link.find(name))[0].task == "detect"
        except InferError:
            served = False
        if served:
            self._remember(client, name)
        return {"model_available": served, "model_loaded": served}

    async def _upload(self, client: bytes, file: str, frames: list[Any]) -> Response:
        """Take a model, where that is allowed; the connection's inferences mean it from now on."""
        try:
            if len(frames) != 2:
                raise BadInput(f"an upload has a header and a model; {len(frames)} frames came")
            self._remember(client, await self._uploads.take(file, frames[1].buffer))
        except InferError as error:
            refused = {"model_saved": False, "model_loaded": False, "message": f"{error.code}: {error}"}
            return Response([_encode(refused)], error)
        return Response([_encode({"model_saved": True, "model_loaded": True})])

    def _remember(self, client: bytes, name: str) -> None:
        self._asked[client] = name
        self._asked.move_to_end(client)
        while len(self._asked) > _MOST_CONNECTIONS:
            self._asked.popitem(last=False)

    async def _model(self, client: bytes) -> ModelView:
        name = self._asked.get(client)
        if name is not None:
            return (await self._link.find(name))[0]
        for view in (await self._link.models()).values():
            if view.task == "detect":
                return view
        raise UnknownModel("no detector is served")

    async def _infer(self, client: bytes, header: dict[str, Any], frames: list[Any]) -> list[bytes]:
        if len(frames) != 2:
            raise BadInput(f"an inference has a header and pixels; {len(frames)} frames came")
        frame = frame_of(header, frames[1].buffer)
        view = await self._model(client)
        height, width = frame.shape[:2]
        work = Work(
            model=view.name,
            options=encode_options({"confidence": CONFIDENCE, "max_detections": ROWS}),
            timeout=_TIMEOUT,
            client=client.hex(),
            source=f"frigate {view.name}"[:128],
        )
        tensor = Tensor("", "uint8", (height, width, 3))
        answer = await self._link.job(work, "frame", (tensor,), (frame.reshape(-1).data,))
        return [_encode({"shape": [ROWS, 6], "dtype": "float32"}), rows_of(answer, width, height).tobytes()]


def _header(data: bytes) -> dict[str, Any]:
    found = json_of(data)
    if not isinstance(found, dict):
        raise BadInput("the first frame is no JSON object")
    return found


def _flag(header: dict[str, Any], name: str) -> bool:
    value = header.get(name) or False
    if not isinstance(value, bool):
        raise BadInput(f"{name} is {str(value)[:40]!r}; true or false is needed")
    return value


def frame_of(header: dict[str, Any], data: memoryview) -> Array:
    """The frame, uint8 [h, w, 3] BGR, that the plugin's tensor stands for.

    Frigate sends RGB: float32 [1, 3, h, w] of 0..1 or 0..255, or uint8 [1, h, w, 3]; its own size is the model's.
    Raises BadInput for anything else.
    """
    shape: Any = header.get("shape")
    dtype = header.get("dtype")
    numbers = isinstance(shape, list) and all(type(size) is int and 0 < size <= 8192 for size in shape)
    if not numbers or len(shape) != 4 or shape[0] != 1:
        raise BadInput(f"shape is {str(shape)[:60]}; [1, 3, h, w] or [1, h, w, 3] is needed")
    if dtype not in ("float32", "uint8"):
        raise BadInput(f"dtype is {str(dtype)[:40]!r}; float32 or uint8 is needed")
    wanted = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if len(data) != wanted:
        raise BadInput(f"the pixels have {len(data)} bytes; {dtype} {shape} takes {wanted}")
    pixels: Array = np.frombuffer(data, dtype).reshape(shape)[0]
    if shape[3] != 3:
        if shape[1] != 3:
            raise BadInput(f"shape is {shape}; three channels are needed, second or last")
        pixels = pixels.transpose(1, 2, 0)
    if dtype == "float32":
        if not bool(np.isfinite(pixels).all()):
            raise BadInput("the pixels hold NaN or infinity")
        scale = np.float32(255.0 if float(pixels.max(initial=0.0)) <= 1.0 else 1.0)
        pixels = np.rint(pixels * scale).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels[:, :, ::-1])


def rows_of(answer: Answer, width: int, height: int) -> Array:
    """An answer as the plugin reads it: float32 [20, 6], best first, zeros behind."""
    rows = np.zeros((ROWS, 6), np.float32)
    count = min(ROWS, len(answer))
    if count:
        best = np.argsort(-answer.scores, kind="stable")[:count]
        scale = np.array([height, width, height, width], np.float32)
        rows[:count, 0] = answer.classes[best]
        rows[:count, 1] = answer.scores[best]
        rows[:count, 2:] = (answer.boxes[best][:, [1, 0, 3, 2]] / scale).clip(0.0, 1.0)
    return rows


def _nothing(error: InferError) -> Response:
    """No objects, and why."""
    zeros = np.zeros((ROWS, 6), np.float32).tobytes()
    header = {"shape": [ROWS, 6], "dtype": "float32", "error": f"{error.code}: {error}"}
    return Response([_encode(header), zeros], error)
