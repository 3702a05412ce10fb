"""All stages in the process that asks: what commands, quantization and the synchronous loop use of them.

Modules are imported when something is first asked of them: a command that reads a picture needs no ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from parallel_infer.ipc import stages as contract
from parallel_infer.ipc.messages import ModelPlan
from parallel_infer.model_spec import ModelSpec
from parallel_infer.pipeline import Arrays, Geometry, MakeAnswer, MakeRows, Pipeline


class Inline:
    """The `Pipeline` and the `Stages` of `parallel_infer`."""

    def describe(self, name: str, path: Path, overrides: Mapping[str, Any]) -> ModelSpec:
        from stages.recognise import describe

        return describe(name, path, overrides)

    def export_command(self, family: str) -> str:
        from stages.families import export_command

        return export_command(family)

    def read_picture(self, payload: bytes, formats: Sequence[str]) -> npt.NDArray[Any]:
        from stages.opencv import MAX_PIXELS
        from stages.pictures import Decoder, PictureLimits

        limits = msgspec.convert({"max_pixels": MAX_PIXELS, "formats": formats}, PictureLimits)
        return Decoder(limits).decode(payload).frame

    def rows(self, spec: ModelSpec) -> MakeRows:
        from stages.pictures import Decoder, PictureLimits
        from stages.preprocess import Preprocess, Preprocessor, constants

        preprocess = msgspec.convert(spec.preprocess, Preprocess)
        preprocessor = Preprocessor(preprocess, "float32", preprocess.layout)
        further = constants(preprocess, spec.inputs)
        decoder = Decoder(PictureLimits())

        def make(payload: bytes) -> tuple[Arrays, Geometry]:
            row = np.empty(preprocessor.shape, np.float32)
            frame, geometry = decoder.decode(payload)
            geometry = preprocessor.write(frame, row, geometry)
            return {preprocess.input: row, **further}, geometry

        return make

    def answers(self, spec: ModelSpec) -> MakeAnswer:
        from stages import geometry
        from stages.pipeline import task_for

        task = task_for(spec)
        options = task.options(b"\x80")  # an empty map: the model's defaults

        def make(outputs: Mapping[str, npt.NDArray[Any]], of_row: Geometry) -> Arrays:
            return task.answer(outputs, geometry.Geometry(*of_row), options)

        return make

    def decode(self, limits: Mapping[str, Any]) -> contract.DecodeStage:
        from stages.decode import Decode

        return Decode(limits)

    def infer(self, plan: ModelPlan, rows: contract.HasArrays, outputs: contract.HasArrays) -> contract.InferStage:
        from stages.infer import Infer

        return Infer(plan, rows, outputs)

    def postprocess(self) -> contract.PostprocessStage:
        from stages.postprocess import Postprocess

        return Postprocess()


_inline = Inline()
PIPELINE: Pipeline = _inline
STAGES: contract.Stages = _inline
