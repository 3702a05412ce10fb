"""The postprocess stage: from an output slot to answers, ready for the wire."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from parallel_infer.answers.answer import result_dict
from parallel_infer.crops import CutOut
from parallel_infer.ipc.messages import AnswerFormat, ModelPlan, PostJob
from parallel_infer.model_spec import ModelSpec
from parallel_infer.protocol import AnswerBody, Tensor
from stages import crops
from stages.geometry import Geometry
from stages.pipeline import task_for

Arrays = dict[str, npt.NDArray[Any]]
_encode = msgspec.msgpack.Encoder().encode


class Encoded(NamedTuple):
    """An answer as it travels: the body of the header, and the payload's pieces in order."""

    body: bytes
    payload: list[npt.NDArray[Any]]
    crops: tuple[CutOut, ...] = ()
    left_out: tuple[int, ...] = ()


class Postprocess:
    """Computes answers for every model; used by one thread."""

    def __init__(self) -> None:
        self._models: dict[str, tuple[ModelSpec, Any]] = {}

    def add(self, plan: ModelPlan) -> None:
        """Get ready for a model."""
        self._models[plan.key] = plan.spec, task_for(plan.spec)

    def remove(self, name: str) -> None:
        """Forget a model."""
        self._models.pop(name, None)

    def answer(self, name: str, outputs: Arrays, job: PostJob) -> Encoded:
        """The answer of one job from its outputs (without the batch dimension). Raises InferError."""
        spec, task = self._models[name]
        geometry = Geometry(*job.geometry)
        arrays = task.answer(outputs, geometry, task.options(job.options))
        names = _names(spec, arrays)
        width, height = int(geometry.width), int(geometry.height)
        found: tuple[tuple[CutOut, ...], tuple[int, ...]] = (), ()
        if job.part is not None:
            if job.part.crop is not None and spec.task != "tensor":
                arrays = crops.in_picture(arrays, job.part.crop)
                width, height = job.part.crop.of_width, job.part.crop.of_height
            if job.part.selections:
                found = crops.select(arrays, (width, height), job.part.selections)
        if job.format == AnswerFormat.OBJECTS:
            result = result_dict(spec.task, arrays, names, width=width, height=height, seconds=sum(job.times))
            return Encoded(_encode(result), [], *found)
        body = AnswerBody(
            task=spec.task,
            model=spec.name,
            width=width,
            height=height,
            arrays=tuple(Tensor(key, array.dtype.name, array.shape) for key, array in arrays.items()),
            names=names,
        )
        pieces = [np.ascontiguousarray(array) for array in arrays.values() if array.size]
        return Encoded(_encode(body), pieces, *found)


def _names(spec: ModelSpec, arrays: Arrays) -> dict[int, str]:
    """Names of the classes in this answer."""
    if not spec.names or spec.task == "tensor" or "classes" not in arrays:
        return {}
    count = len(spec.names)
    return {number: spec.names[number] for number in set(arrays["classes"].tolist()) if 0 <= number < count}
