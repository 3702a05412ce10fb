"""The answer of one job: named arrays with their meaning, and the same as a documented map for people and JSON."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from parallel_infer.answers.result_map import (
    Array,
    Floats,
    Polygons,
    names_of,
    polygons,
    result_dict,
    rotated_corners,
    run_lengths,
)
from parallel_infer.errors import InferError, error_for
from parallel_infer.protocol import Answer as WireAnswer
from parallel_infer.protocol import AnswerBody, AnswerPart, Tensor
from parallel_infer.wrong_fields import explained

__all__ = ["Answer", "result_dict", "rotated_corners"]

_BODY = msgspec.msgpack.Decoder(AnswerBody)
_NO_BOXES = np.zeros((0, 4), np.float32)
_NO_SCORES = np.zeros(0, np.float32)
_NO_CLASSES = np.zeros(0, np.int64)


Encoded = str | os.PathLike[str] | bytes | bytearray | memoryview  # a picture's file, or what it holds


class Answer:
    """What a model says about one picture. Coordinates are pixels of the original picture; arrays are read-only views.

    `arrays` holds everything by the names of the wire; the properties give it its meaning. `timing` is in seconds per
    stage and wait, `batch_size` the size of the batch that the job was part of; 0 where nothing was computed. `still`:
    it is the answer to an earlier frame of a live source, from which this one does not differ.

    Of several models asked at once (`task` is "fan"), `parts` has the answer of each by its name. Of a chain,
    `children` has for each object what the next models say about it, by their names, and `left_out` counts by name the
    objects that were too many to be asked about. A part or child that failed is an InferError in its place.
    """

    __slots__ = (
        *("arrays", "batch_size", "children", "class_names", "height", "left_out", "model", "parts", "still", "task"),
        *("timing", "width"),
    )

    def __init__(
        self,
        task: str,
        model: str,
        arrays: Mapping[str, Array],
        class_names: Mapping[int, str] | None = None,
        *,
        width: int = 0,
        height: int = 0,
        timing: Mapping[str, float] | None = None,
        batch_size: int = 1,
    ) -> None:
        self.task = task
        self.model = model
        self.arrays = arrays
        self.class_names = class_names or {}
        self.width = width  # of the original picture; 0 for tensors
        self.height = height
        self.timing = timing or {}
        self.batch_size = batch_size
        self.still = False
        self.parts: Parts = {}
        self.children: list[Parts] = []  # by object; empty where the model is no chain
        self.left_out: Mapping[str, int] = {}

    @classmethod
    def from_wire(cls, header: WireAnswer, payload: bytes | memoryview) -> Answer:
        """The answer of a reply of format "arrays". Its arrays are views of `payload`, which they keep alive.

        Raises InferError where the reply does not fit together.
        """
        try:
            found, _ = cls._of_body(_BODY.decode(header.answer), payload, 0)
        except msgspec.MsgspecError as error:
            raise InferError(f"The answer of the server cannot be read: {explained(error)}") from error
        except (ValueError, TypeError, IndexError) as error:
            raise InferError(f"The answer of the server cannot be read: {error}") from error
        found.timing, found.batch_size = header.timing, header.batch
        return found

    @classmethod
    def _of_body(cls, body: AnswerBody, payload: bytes | memoryview, offset: int) -> tuple[Answer, int]:
        """The answer whose arrays begin at `offset` of the payload, and where those of the next one begin."""
        arrays, offset = _views(body.arrays, payload, offset)
        found = cls(body.task, body.model, arrays, body.names, width=body.width, height=body.height)
        found.left_out = body.left_out
        for part in body.parts:
            found.parts[part.model], offset = cls._of_part(part, payload, offset)
        if body.children is not None:
            found.children = [{} for _ in range(len(found))]
        for part in body.children or ():
            found.children[part.object][part.model], offset = cls._of_part(part, payload, offset)
        return found, offset

    @classmethod
    def _of_part(cls, part: AnswerPart, payload: bytes | memoryview, offset: int) -> tuple[Answer | InferError, int]:
        if part.error is not None:
            return error_for(part.error.code, part.error.message), offset
        if part.answer is None:
            raise ValueError(f"the part of {part.model!r} holds neither an answer nor an error")
        found, offset = cls._of_body(part.answer, payload, offset)
        found.timing, found.batch_size = part.timing, part.batch
        return found, offset

    @property
    def boxes(self) -> Floats:
        """float32 [n, 4] xyxy; of rotated boxes, the unrotated box about the same centre."""
        return self.arrays.get("boxes", _NO_BOXES)

    @property
    def scores(self) -> Floats:
        """float32 [n], 0 to 1."""
        return self.arrays.get("scores", _NO_SCORES) if self.task != "tensor" else _NO_SCORES

    @property
    def classes(self) -> npt.NDArray[np.int64]:
        """int64 [n], class numbers of the model."""
        return self.arrays.get("classes", _NO_CLASSES) if self.task != "tensor" else _NO_CLASSES

    @property
    def names(self) -> list[str]:
        """The class name of each object; the class number where the model has no names."""
        return names_of(self.classes, self.class_names)

    @property
    def text(self) -> str:
        """The line that a text model read; empty for other tasks."""
        return self.arrays["text"].tobytes().decode() if self.task == "text" else ""

    @property
    def masks(self) -> Polygons | None:
        """Per object a list of rings, float32 [k, 2] each, the largest first; None where masks are not polygons."""
        return polygons(self.arrays)

    @property
    def rle(self) -> list[dict[str, Any]] | None:
        """Per object a COCO run-length mask {"size": [height, width], "counts": str}; None where there are none."""
        return run_lengths(self.arrays, self.width, self.height)

    @property
    def keypoints(self) -> Floats | None:
        """float32 [n, k, 3] (x, y, confidence), or None."""
        return self.arrays.get("keypoints")

    @property
    def angles(self) -> Floats | None:
        """float32 [n], radians, of rotated boxes; or None."""
        return self.arrays.get("angles")

    @property
    def track_ids(self) -> npt.NDArray[np.int64] | None:
        """int64 [n], what an object is called in every frame of its source; -1: seen once so far. None: not tracked."""
        return self.arrays.get("track_ids")

    @property
    def corners(self) -> Floats | None:
        """float32 [n, 4, 2], the corners of rotated boxes in order; or None."""
        return None if self.angles is None else rotated_corners(self.boxes, self.angles)

    @property
    def top(self) -> str | None:
        """Name of the best class of a classification; None for other tasks and where no class passed the threshold."""
        return self.names[0] if self.task == "classify" and len(self.classes) else None

    @property
    def areas(self) -> npt.NDArray[np.int64] | None:
        """int64 [n], pixels of each class of a semantic segmentation; or None. `classes` are the largest first."""
        return self.arrays.get("areas")

    @property
    def class_map(self) -> npt.NDArray[np.integer[Any]] | None:
        """uint8 or uint16 [height, width], the class of each pixel; None where it was asked for in another form."""
        return self.arrays.get("class_map")

    @property
    def map(self) -> Floats | None:
        """float32 [height, width], a number for each pixel (depth, for example); or None."""
        return self.arrays.get("map")

    @property
    def embedding(self) -> Floats | None:
        """float32 [d] of length 1: the dot product of two is the likeness of their pictures. Or None."""
        return self.arrays.get("embedding")

    @property
    def tensors(self) -> dict[str, Array]:
        """The outputs of a tensor model by name; empty for other tasks."""
        return dict(self.arrays) if self.task == "tensor" else {}

    @property
    def seconds(self) -> float:
        """From admission to answer, as far as the server told."""
        return self.timing.get("total", sum(self.timing.values()))

    def to_dict(self) -> dict[str, Any]:
        """The documented result map, plain values only; `supervision` reads it with `from_inference`."""
        if self.task == "fan":
            found: dict[str, Any] = {"model": self.model, "time": self.seconds, "parts": plain_parts(self.parts)}
        else:
            size = {"width": self.width, "height": self.height}
            found = result_dict(self.task, self.arrays, self.class_names, seconds=self.seconds, **size)
        for prediction, children in zip(found.get("predictions", ()), self.children, strict=False):
            if children:
                prediction["children"] = plain_parts(children)
        if self.left_out:
            found["left_out"] = dict(self.left_out)
        return {**found, "still": True} if self.still else found

    def for_still(self) -> Answer:
        """The same for a later frame that does not differ: it took no time, and says that it is `still`."""
        again = copy.copy(self)
        again.still, again.batch_size, again.timing = True, 0, dict.fromkeys(self.timing, 0.0)
        return again

    def draw(self, frame: npt.NDArray[np.uint8] | Encoded) -> npt.NDArray[np.uint8]:
        """A copy of `frame` with this answer drawn on it, uint8 [h, w, 3] BGR. Needs OpenCV.

        `frame` is uint8 [h, w, 3] BGR or [h, w] gray, or the picture that was asked about: a path or its bytes. Raises
        ValueError for a frame that lies on its side, BadInput for a picture that cannot be read.
        """
        from parallel_infer.answers.drawing import draw

        if isinstance(frame, (str, os.PathLike, bytes, bytearray, memoryview)):
            from parallel_infer.pictures.files import read_picture

            frame = read_picture(frame)
        return draw(frame, self)

    def __len__(self) -> int:
        """Number of objects or classes."""
        return len(self.classes) if self.areas is not None else len(self.scores)

    def __bool__(self) -> bool:
        """True: an answer without objects is still an answer."""
        return True

    def __repr__(self) -> str:
        found = f"{len(self)} found"
        if self.task == "fan":
            found = f"{len(self.parts)} parts"
        if self.task in ("tensor", "map", "embedding"):
            found = f"{len(self.arrays)} arrays"
        return f"<Answer {self.task} of {self.model!r}: {found}, picture {self.width}x{self.height}>"


Parts = dict[str, Answer | InferError]
"""What several models say, by their names; an error stands for what one of them does not."""


def plain_parts(parts: Mapping[str, Answer | InferError]) -> dict[str, Any]:
    """Parts as the result map has them."""
    return {
        name: {"error": {"code": found.code, "message": str(found)}}
        if isinstance(found, InferError)
        else found.to_dict()
        for name, found in parts.items()
    }


def _views(tensors: tuple[Tensor, ...], payload: bytes | memoryview, offset: int) -> tuple[dict[str, Array], int]:
    """The arrays that begin at `offset`, and where they end."""
    arrays: dict[str, Array] = {}
    for tensor in tensors:
        name, shape = tensor.name, tensor.shape
        dtype = _dtype(tensor.dtype)
        if dtype.kind not in "biufc":
            raise ValueError(f"array {name!r} has the unknown element type {tensor.dtype!r}")
        count = math.prod(shape)
        # frombuffer refuses an empty buffer, though an array without elements needs none.
        flat = np.frombuffer(payload, dtype, count, offset) if count else np.empty(0, dtype)
        arrays[name] = flat if len(shape) == 1 else flat.reshape(shape)
        offset += count * dtype.itemsize
    return arrays, offset


@lru_cache(256)
def _dtype(name: str) -> np.dtype[Any]:
    return np.dtype(name)
