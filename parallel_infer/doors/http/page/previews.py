"""The last picture of each live source with its answer drawn on it, for as long as a page asks for it."""

from __future__ import annotations

import asyncio
import bisect
import logging
import math
from collections.abc import Mapping
from typing import Any

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
import simplejpeg

from parallel_infer import protocol
from parallel_infer.answers.answer import Answer
from parallel_infer.answers.drawing import draw
from parallel_infer.doors.gateway_link import GatewayLink
from parallel_infer.errors import BadInput, InferError
from parallel_infer.limits import PREVIEW_SIDE
from parallel_infer.protocol import Tensor

_QUALITY = 80  # of its JPEG
_PAUSE = 2.0  # seconds between two pictures of one source
_EACH = 0.5  # seconds between two pictures of any sources, where there are many; about 4 ms of processor time each
_BYTES_PER_SECOND = 16 << 20  # that the gateway copies for all previews together, about
_KEPT = 6.0  # seconds after the last page asked
_MOST = 64  # sources that are followed; the gateway tells no more apart
_LOOK = 20.0  # seconds that one request waits for a frame
# How a picture is read whose longer side is below 2, 4 and 8 times what is shown, and beyond: no smaller than that.
_REDUCED_FROM = (2, 4, 8)
_REDUCED = (cv2.IMREAD_COLOR, cv2.IMREAD_REDUCED_COLOR_2, cv2.IMREAD_REDUCED_COLOR_4, cv2.IMREAD_REDUCED_COLOR_8)
log = logging.getLogger(__name__)

Frame = npt.NDArray[np.uint8]


class Seen(msgspec.Struct, frozen=True):
    """A frame with its answer, as the gateway gives it (`parallel_infer.gateway.looks`)."""

    kind: str
    tensors: tuple[Tensor, ...]
    options: Mapping[str, Any]
    payload: bytes
    format: str
    answer: msgspec.Raw
    arrays: bytes


class Preview(msgspec.Struct, frozen=True):
    """A picture to show: a JPEG, or why there is none."""

    number: int  # counts up with each picture of a source
    jpeg: bytes = b""
    why: str = ""


_decode = msgspec.msgpack.Decoder(Seen | None).decode


class Previews:
    """Waits for a frame of each source that pages ask for, and draws it; a source nobody asks for is left alone."""

    def __init__(self, link: GatewayLink, side: int = PREVIEW_SIDE) -> None:
        """`side` is the longer one of the pictures, in pixels; the letters of labels do not shrink with it."""
        self._link = link
        self._side = side
        self._latest: dict[str, Preview] = {}
        self._asked: dict[str, float] = {}  # when a page asked last
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._drawing = asyncio.Semaphore(1)  # one thread, however many sources there are

    def of(self, source: str) -> Preview | None:
        """The newest picture of a source; None where none has come since a page began to ask."""
        if source not in self._tasks and len(self._tasks) >= _MOST:
            return None
        self._asked[source] = asyncio.get_running_loop().time()
        if source not in self._tasks:
            self._tasks[source] = asyncio.ensure_future(self._follow(source))
        return self._latest.get(source)

    def close(self) -> None:
        """Wait for nothing any more."""
        for task in self._tasks.values():
            task.cancel()

    async def _follow(self, source: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._asked[source] > loop.time() - _KEPT:
                size = 0
                try:
                    asked = self._link.ask(protocol.Look, _LOOK + 5, source=source, seconds=_LOOK)
                    seen = _decode(await asked)
                    if seen is not None:
                        size = len(seen.payload)
                        async with self._drawing:
                            await self._show(source, seen)
                except BadInput as error:  # a router, which has no frames
                    self._latest[source] = Preview(1, why=str(error))
                except InferError as error:  # the gateway is being restarted, or the frame cannot be drawn
                    log.debug("no preview of a source: %s", error)
                await asyncio.sleep(max(_PAUSE, len(self._tasks) * max(_EACH, size / _BYTES_PER_SECOND)))
        finally:
            del self._tasks[source], self._asked[source]
            self._latest.pop(source, None)

    async def _show(self, source: str, seen: Seen) -> None:
        before = self._latest.get(source)
        number = 1 if before is None else before.number + 1
        try:
            self._latest[source] = Preview(number, jpeg=await asyncio.to_thread(preview, seen, self._side))
        except (ValueError, cv2.error, InferError) as error:
            self._latest[source] = Preview(number, why=f"this frame cannot be shown: {error}")


def preview(seen: Seen, side: int = PREVIEW_SIDE) -> bytes:
    """A small JPEG of a frame with its answer. Raises ValueError for a frame that is no picture here."""
    if seen.kind == "drawn":
        return _written(_read_drawn(seen.payload, side))
    answer = answer_of(seen)
    frame = frame_of(seen, _REDUCED[bisect.bisect(_REDUCED_FROM, max(answer.width, answer.height) / side)])
    scale = min(1.0, side / max(frame.shape[:2]))
    if scale < 1:
        size = [max(1, round(length * scale)) for length in frame.shape[1::-1]]
        frame = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
    return _written(draw(frame, answer))


def _written(frame: Frame) -> bytes:
    done, encoded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise ValueError("it cannot be written as a JPEG")
    return encoded.tobytes()


def _read_drawn(jpeg: bytes, side: int) -> Frame:
    """What the client of a source has drawn, read and written anew: a browser gets nothing as it was sent."""
    height, width, *_ = simplejpeg.decode_jpeg_header(jpeg)
    if max(height, width) > side:
        text = f"its client has drawn it with {width}x{height} pixels; up to {side}x{side} are shown"
        raise ValueError(f"{text} (option page_picture_pixels)")
    return np.asarray(simplejpeg.decode_jpeg(jpeg, "BGR"), np.uint8)


def frame_of(seen: Seen, reading: int = cv2.IMREAD_COLOR) -> Frame:
    """The frame's pixels, uint8 [h, w, 3] BGR or [h, w]; `reading` is how OpenCV reads an encoded one.

    Raises ValueError where it is no picture.
    """
    encoded = np.frombuffer(seen.payload, np.uint8)
    if seen.kind == "picture":
        found = cv2.imdecode(encoded, reading)
        if found is None:
            raise ValueError("its format is not decoded here")
        return np.asarray(found, np.uint8)
    if seen.kind != "frame" or not seen.tensors:
        raise ValueError("it was sent as ready tensors")
    shape = seen.tensors[0].shape
    if math.prod(shape) > len(encoded):
        raise ValueError("it is incomplete")
    frame = encoded[: math.prod(shape)].reshape(shape)
    return frame[:, :, ::-1] if seen.options.get("color") == "rgb" and frame.ndim == 3 else frame


def answer_of(seen: Seen) -> Answer:
    """The answer, whose boxes at least can be drawn: answers as objects have lost their arrays."""
    if seen.format == "arrays":
        return Answer.from_wire(protocol.Answer(id=0, answer=seen.answer), seen.arrays)
    return _of_map(msgspec.msgpack.decode(seen.answer))


def _of_map(result: dict[str, Any]) -> Answer:
    if "parts" in result:
        parts = {name: _of_map(part) for name, part in result["parts"].items() if "error" not in part}
        size = max(((part.width, part.height) for part in parts.values()), default=(0, 0))
        fan = Answer("fan", "", {}, width=size[0], height=size[1])
        fan.parts.update(parts)
        return fan
    found = [each for each in result.get("predictions", ()) if isinstance(each, dict) and "x" in each]
    centres = np.array([[each["x"], each["y"]] for each in found], np.float32).reshape(-1, 2)
    halves = np.array([[each["width"], each["height"]] for each in found], np.float32).reshape(-1, 2) / 2
    image = result.get("image", {})
    return Answer(
        "detect",
        "",
        {
            "boxes": np.concatenate([centres - halves, centres + halves], 1),
            "scores": np.array([each["confidence"] for each in found], np.float32),
            "classes": np.array([each["class_id"] for each in found], np.int64),
        },
        {each["class_id"]: each["class"] for each in found},
        width=image.get("width", 0),
        height=image.get("height", 0),
    )
