"""The decode stage: from a payload to a row of the model's input ring."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from parallel_infer.errors import BadInput
from parallel_infer.messages import ModelPlan, PayloadKind
from parallel_infer.models import ModelSpec, TensorSpec
from parallel_infer.protocol import Tensor
from stages.geometry import Geometry
from stages.pictures import Decoder, PictureLimits
from stages.pipeline import task_for
from stages.preprocess import Preprocess, Preprocessor, constants

Rows = Mapping[str, npt.NDArray[Any]]  # one job's row of each input


class _Model:
    """What decoding for one model takes."""

    def __init__(self, plan: ModelPlan) -> None:
        self.spec: ModelSpec = plan.spec
        self.task = task_for(plan.spec)
        self.decode = plan.run["decode"]
        self.preprocessor: Preprocessor | None = None
        self.picture = ""
        self.further: Rows = {}
        if plan.spec.preprocess:
            preprocess = msgspec.convert(plan.spec.preprocess, Preprocess)
            row = next(tensor for tensor in plan.spec.inputs if tensor.name == preprocess.input)
            self.picture = preprocess.input
            pixels = (preprocess.height, preprocess.width, 3)
            layout = "nhwc" if row.shape == pixels else preprocess.layout
            self.preprocessor = Preprocessor(preprocess, row.dtype, layout)
            self.further = constants(preprocess, plan.spec.inputs)
            self.identity = Geometry(preprocess.width, preprocess.height, 1, 1, 0, 0)
        else:
            self.identity = Geometry(0, 0, 1, 1, 0, 0)


class Decode:
    """Decodes payloads for every model. Keeps its scratch memory from picture to picture; used by one thread."""

    def __init__(self, limits: Mapping[str, Any]) -> None:
        self._decoder = Decoder(msgspec.convert(dict(limits), PictureLimits))
        self._models: dict[str, _Model] = {}

    def add(self, plan: ModelPlan) -> None:
        """Get ready for a model."""
        self._models[plan.key] = _Model(plan)

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
    ) -> Geometry:
        """Write the row of a job. Raises BadInput for a payload or options the model does not take."""
        model = self._models[name]
        wanted = model.task.options(options)  # wrong options cost no inference
        if kind == PayloadKind.TENSORS:
            return _copy_tensors(model, tensors, payload, row)
        if model.preprocessor is None:
            raise BadInput(f"model {model.spec.name!r} takes tensors, not pictures: {_expected(model.spec)}")
        if kind == PayloadKind.FRAME:
            frame, geometry = _frame(tensors, payload), None
        else:
            fast = (wanted.decode or model.decode) == "fast"
            scale = model.preprocessor.least_scale if fast else None
            frame, geometry = self._decoder.decode(payload, scale)
        for further, values in model.further.items():
            row[further][...] = values
        return model.preprocessor.write(frame, row[model.picture], geometry)


def _frame(tensors: tuple[Tensor, ...], payload: memoryview) -> npt.NDArray[Any]:
    """The payload as a frame, where it lies."""
    if len(tensors) != 1 or tensors[0].dtype != "uint8" or len(tensors[0].shape) not in (2, 3):
        raise BadInput("a frame is one tensor, uint8 [height, width, 3] in BGR order or [height, width] gray")
    shape = tensors[0].shape
    size = math.prod(shape)
    if size != len(payload) or not size:
        raise BadInput(f"a frame of shape {list(shape)} has {size} bytes; the payload has {len(payload)}")
    return np.frombuffer(payload, np.uint8).reshape(shape)


def _copy_tensors(model: _Model, tensors: tuple[Tensor, ...], payload: memoryview, row: Rows) -> Geometry:
    expected = {tensor.name: tensor for tensor in model.spec.inputs}
    if len(tensors) == 1 and len(expected) == 1 and not tensors[0].name:
        tensors = (Tensor(next(iter(expected)), tensors[0].dtype, tensors[0].shape),)
    if {tensor.name for tensor in tensors} != set(expected) or len(tensors) != len(expected):
        given = ", ".join(repr(tensor.name) for tensor in tensors)
        raise BadInput(f"model {model.spec.name!r} takes {_expected(model.spec)}; tensors came for {given}")
    at = 0
    for tensor in tensors:
        at += _copy_tensor(expected[tensor.name], tensor, payload, at, row[tensor.name])
    if at != len(payload):
        raise BadInput(f"the tensors described have {at} bytes; the payload has {len(payload)}")
    return model.identity


def _copy_tensor(expected: TensorSpec, given: Tensor, payload: memoryview, at: int, row: npt.NDArray[Any]) -> int:
    shape, axis = given.shape, expected.axis
    if len(shape) == len(expected.shape) + 1 and axis is not None and shape[axis] == 1:
        shape = (*shape[:axis], *shape[axis + 1 :])  # a batch of one
    if given.dtype != expected.dtype or tuple(shape) != expected.shape:
        raise BadInput(
            f"input {expected.name!r} is {expected.dtype} {list(expected.shape)}; "
            f"{given.dtype} {list(given.shape)} came"
        )
    if at + expected.size > len(payload):
        raise BadInput(f"the payload ends inside tensor {expected.name!r}: {len(payload)} bytes came")
    source = np.frombuffer(payload, expected.dtype, math.prod(shape), at)
    np.copyto(row, source.reshape(shape))
    return expected.size


def _expected(spec: ModelSpec) -> str:
    return ", ".join(f"{tensor.name!r} {tensor.dtype} {list(tensor.shape)}" for tensor in spec.inputs)
