"""A model file taken all the way in one process: recognised, fed with a picture, run, and its answer read."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnxruntime

from parallel_infer.model_spec import ModelSpec
from stages.geometry import Geometry
from stages.pipeline import task_for
from stages.preprocess import Preprocess, Preprocessor, constants
from stages.tasks import Arrays


def answer_of(spec: ModelSpec, frame: npt.NDArray[np.uint8], **options: Any) -> Arrays:
    """The answer about one frame, uint8 [h, w, 3] BGR."""
    rows, geometry = _rows(spec, frame)
    session = onnxruntime.InferenceSession(spec.path, providers=["CPUExecutionProvider"])
    feeds = {
        tensor.name: rows[tensor.name] if tensor.axis is None else np.expand_dims(rows[tensor.name], tensor.axis)
        for tensor in spec.inputs
    }
    outputs = {
        tensor.name: array if tensor.axis is None else array.take(0, tensor.axis)
        for tensor, array in zip(spec.outputs, session.run(None, feeds), strict=True)
    }
    task = task_for(spec)
    return task.answer(outputs, geometry, task.options(msgspec.msgpack.encode(options)))


def _rows(spec: ModelSpec, frame: npt.NDArray[np.uint8]) -> tuple[dict[str, npt.NDArray[Any]], Geometry]:
    preprocess = msgspec.convert(spec.preprocess, Preprocess)
    picture = next(tensor for tensor in spec.inputs if tensor.name == preprocess.input)
    preprocessor = Preprocessor(preprocess, picture.dtype, preprocess.layout)
    row = np.empty(preprocessor.shape, picture.dtype)
    geometry = preprocessor.write(frame, row)
    return {preprocess.input: row, **constants(preprocess, spec.inputs)}, geometry
