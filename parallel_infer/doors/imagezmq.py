"""imagezmq's hub: cameras send frames as REQ, each gets its answer as JSON.

A request is a JSON header and raw BGR pixels ({"msg", "dtype", "shape"}), or a JPEG ({"msg"}). `msg` is the sender's
name of the camera, any JSON; it becomes the source that the server's counters name.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from parallel_infer.doors.gateway_link import GatewayLink, Work
from parallel_infer.doors.zmq_door import Response, json_of
from parallel_infer.errors import BadInput, InferError
from parallel_infer.protocol import Tensor

_encode = msgspec.json.Encoder().encode
_MOST_SIDE = 32768


class ImageZmq:
    """Answers senders with a model's answers."""

    def __init__(self, link: GatewayLink, model: str = "") -> None:
        """`model` is asked; "" is the first detector, else the first model that takes pictures."""
        self._link = link
        self._model = model

    async def respond(self, client: bytes, frames: list[Any]) -> Response:
        """The reply to one frame: the result map, or {"code", "error"}."""
        try:
            return Response([_encode(await self._answer(client, frames))])
        except InferError as error:
            return Response([_encode({"code": error.code, "error": str(error)})], error)

    async def _answer(self, client: bytes, frames: list[Any]) -> dict[str, Any]:
        if len(frames) != 2:
            raise BadInput(f"a message has a header and a picture; {len(frames)} frames came")
        header = _header(frames[0].bytes)
        work = Work(model=await self._name(), client=client.hex(), source=source_of(header["msg"]))
        data = frames[1].buffer
        if "shape" not in header:
            return (await self._link.picture(work, data)).to_dict()
        shape = _shape(header, len(data))
        pixels = data if len(shape) == 3 else np.repeat(np.frombuffer(data, np.uint8), 3).data
        tensor = Tensor("", "uint8", (*shape[:2], 3))
        return (await self._link.job(work, "frame", (tensor,), (pixels,))).to_dict()

    async def _name(self) -> str:
        if self._model:
            return self._model
        views = (await self._link.models()).values()
        for wanted in (True, False):
            for view in views:
                if view.takes_pictures and (view.task == "detect") >= wanted:
                    return view.name
        raise BadInput("no model that takes pictures is served")


def _header(data: bytes) -> dict[str, Any]:
    found = json_of(data)
    if not isinstance(found, dict) or "msg" not in found:
        raise BadInput('the first frame needs {"msg": ...}')
    return found


def source_of(message: Any) -> str:
    """The name of the camera, from whatever JSON the sender calls it by."""
    text = message if isinstance(message, str) else _encode(message).decode()
    return text[:128]


def _shape(header: dict[str, Any], size: int) -> tuple[int, ...]:
    """Height and width, and 3 where the frame has colours. Raises BadInput for what imagezmq does not send."""
    shape, dtype = header["shape"], header.get("dtype")
    numbers = isinstance(shape, list) and all(type(side) is int and 0 < side <= _MOST_SIDE for side in shape)
    if dtype != "uint8" or not numbers or not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)):
        raise BadInput(
            f"{str(dtype)[:20]} {str(shape)[:60]} came; uint8 [h, w, 3] in BGR order or uint8 [h, w] is taken"
        )
    wanted = int(np.prod(shape))
    if size != wanted:
        raise BadInput(f"the pixels have {size} bytes; uint8 {shape} takes {wanted}")
    return tuple(shape)
