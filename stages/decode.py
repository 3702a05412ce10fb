"""The decode stage: from a payload to a row of the model's input ring."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from parallel_infer.crops import PicturePart
from parallel_infer.errors import BadInput
from parallel_infer.ipc.messages import ModelPlan, PayloadKind
from parallel_infer.model_spec import ModelSpec
from parallel_infer.protocol import Tensor
from stages import crops
from stages.geometry import Geometry
from stages.kept import KeptPictures
from stages.pictures import Decoder, LeastScale, Picture, PictureLimits
from stages.pipeline import task_for
from stages.preprocess import Color, Preprocess, Preprocessor, constants
from stages.resample import Kernel, Resampler
from stages.tensors import Declared, Rows, copy_tensors, describe_inputs, encoded


class Written(NamedTuple):
    """How a row was written."""

    geometry: Geometry
    kept: int = 0  # bytes in which its picture is kept for further jobs; 0: it is not
    reused: bool = False  # no payload was decoded


class _Model:
    """What decoding for one model takes."""

    def __init__(self, plan: ModelPlan, resampler: Callable[[Kernel], Resampler]) -> None:
        self.spec: ModelSpec = plan.spec
        self.task = task_for(plan.spec)
        self.decode = plan.decode
        self.preprocessor: Preprocessor | None = None
        self.declared: Declared | None = None
        self.picture = ""
        self.further: Rows = {}
        if plan.spec.preprocess:
            preprocess = msgspec.convert(plan.spec.preprocess, Preprocess)
            row = next(tensor for tensor in plan.spec.inputs if tensor.name == preprocess.input)
            self.picture = preprocess.input
            pixels = (preprocess.height, preprocess.width, 3)
            layout = "nhwc" if row.shape == pixels else preprocess.layout
            self.preprocessor = Preprocessor(preprocess, row.dtype, layout, resampler)
            self.declared = Declared(preprocess, row)
            self.further = constants(preprocess, plan.spec.inputs)
            self.identity = Geometry(preprocess.width, preprocess.height, 1, 1, 0, 0)
        else:
            self.identity = Geometry(0, 0, 1, 1, 0, 0)


class Decode:
    """Decodes payloads for every model. Keeps its scratch memory from picture to picture; used by one thread."""

    def __init__(self, limits: Mapping[str, Any]) -> None:
        self._decoder = Decoder(msgspec.convert(dict(limits), PictureLimits))
        self._models: dict[str, _Model] = {}
        self._resampler = cache(Resampler)  # one of each filter, for all models: they take turns
        # The picture of several jobs and whether it is a fast one, until the next one is decoded.
        self._decoded: tuple[tuple[int, bool], Picture] | None = None
        self._kept = KeptPictures(limits.get("kept", 0))

    def add(self, plan: ModelPlan) -> None:
        """Get ready for a model."""
        self._models[plan.key] = _Model(plan, self._resampler)

    def remove(self, name: str) -> None:
        """Forget a model."""
        self._models.pop(name, None)

    def decode(
        self,
        name: str,
        kind: PayloadKind,
        tensors: tuple[Tensor, ...],
        payload: memoryview,
        options: bytes,
        row: Rows,
        part: PicturePart | None = None,
        *,
        keep: bool = False,
    ) -> Written:
        """Write the row of a job. Raises BadInput for a payload or options the model does not take.

        With `keep`, the decoded picture of `part` is kept for its further jobs, where there is room.
        """
        model = self._models[name]
        wanted = model.task.options(options)  # wrong options cost no inference
        if kind == PayloadKind.TENSORS and (model.preprocessor is None or not encoded(tensors)):
            copy_tensors(model.spec, model.declared, model.further, tensors, payload, row)
            return Written(model.identity)
        if model.preprocessor is None:
            raise BadInput(f"model {model.spec.name!r} takes tensors, not pictures: {describe_inputs(model.spec)}")
        color: Color = "bgr"
        kept, reused = 0, True
        if kind == PayloadKind.FRAME:
            frame, geometry = _frame(tensors, payload), None
            color = _told(wanted, "color", ("bgr", "rgb")) or color
        else:
            scale = self._scale([model.preprocessor], model.decode, wanted)
            if part is not None and part.crop is not None:
                scale = None  # a crop is of the picture's own pixels
            elif part is not None and part.together:
                scale = self._scale_of_fan(part.together, wanted)
            (frame, geometry), kept, reused = self._decode(payload, scale, part, keep)
        for further, values in model.further.items():
            row[further][...] = values
        if part is not None and part.crop is not None:
            frame, geometry = crops.cut(frame, part.crop), None
        return Written(model.preprocessor.write(frame, row[model.picture], geometry, color), kept, reused)

    def _decode(
        self, payload: memoryview, scale: LeastScale | None, part: PicturePart | None, keep: bool
    ) -> tuple[Picture, int, bool]:
        """The picture, the bytes in which it is kept, and whether it was there: several jobs may share one."""
        if part is None:
            self._decoded = None  # the decoder's memory is used again
            return self._decoder.decode(payload, scale), 0, False
        picture = self._kept.get(part.picture)
        if picture is not None:
            return picture, picture.frame.nbytes, True
        asked = part.picture, scale is not None
        reused = self._decoded is not None and self._decoded[0] == asked
        if self._decoded is None or not reused:
            self._decoded = None
            self._decoded = asked, self._decoder.decode(payload, scale)
        picture = self._decoded[1]
        return picture, self._kept.put(part.picture, picture) if keep and scale is None else 0, reused

    @staticmethod
    def _scale(rows: Sequence[Preprocessor], decode: str, wanted: Any) -> LeastScale | None:
        """The smallest scale that has every pixel of these rows; None: full size, exact."""
        if (_told(wanted, "decode", ("exact", "fast")) or decode) != "fast":
            return None
        return lambda width, height: max(row.least_scale(width, height) for row in rows)

    def _scale_of_fan(self, names: Sequence[str], wanted: Any) -> LeastScale | None:
        """One for all models of a fan, so that one decode does for all; it is exact unless all of them are fast."""
        models = [model for model in self._models.values() if model.spec.name in names]
        rows = [model.preprocessor for model in models if model.preprocessor is not None]
        return self._scale(rows, "fast" if all(model.decode == "fast" for model in models) else "exact", wanted)

    def forget(self, pictures: Iterable[int] | None) -> None:
        """Keep these pictures no more; None: any."""
        self._kept.forget(pictures)


def _told(options: Any, name: str, known: tuple[Color, ...] | tuple[str, ...]) -> Any:
    """A field of the options, where the task has one of that name that means what it means here."""
    value = getattr(options, name, None)
    return value if value in known else None


def _frame(tensors: tuple[Tensor, ...], payload: memoryview) -> npt.NDArray[Any]:
    """The payload as a frame, where it lies."""
    if len(tensors) != 1 or tensors[0].dtype != "uint8" or len(tensors[0].shape) not in (2, 3):
        raise BadInput("a frame is one tensor, uint8 [height, width, 3] or [height, width] gray")
    shape = tensors[0].shape
    size = math.prod(shape)
    if size != len(payload) or not size:
        raise BadInput(f"a frame of shape {list(shape)} has {size} bytes; the payload has {len(payload)}")
    return np.frombuffer(payload, np.uint8).reshape(shape)
