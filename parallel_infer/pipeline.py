"""What stages can do outside a server, in the process that asks: the one door to them, typed.

`stages.inline` implements it; it is loaded by name, because nothing in this package imports `stages`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from parallel_infer.loading import load_by_name
from parallel_infer.model_spec import ModelSpec

Arrays = dict[str, npt.NDArray[Any]]
Geometry = tuple[float, ...]  # how a picture became a row; only stages look into it
MakeRows = Callable[[bytes], tuple[Arrays, Geometry]]
MakeAnswer = Callable[[Mapping[str, npt.NDArray[Any]], Geometry], Arrays]


class Pipeline(Protocol):
    """Every method imports what it needs when it is called, so that `load_pipeline` costs nothing."""

    def describe(self, name: str, path: Path, overrides: Mapping[str, Any]) -> ModelSpec:
        """What the ONNX model at `path` is and how it is served; `overrides` are the options of a model.

        Raises ModelRejected for a model that cannot be served, ConfigError for an override that does not fit.
        """

    def export_command(self, family: str) -> str:
        """The command or call that exports a model of this family with a dynamic batch."""

    def read_picture(self, payload: bytes, formats: Sequence[str]) -> npt.NDArray[Any]:
        """The frame in an encoded picture of one of these formats, uint8 [h, w, 3] BGR, turned upright.

        Raises BadInput.
        """

    def rows(self, spec: ModelSpec) -> MakeRows:
        """What makes of an encoded picture the inputs of one row in float32, by name, and its geometry.

        What it returns raises BadInput for a payload that is no picture.
        """

    def answers(self, spec: ModelSpec) -> MakeAnswer:
        """What makes of one picture's outputs, without the batch dimension, and its geometry the arrays of its answer.

        What it returns raises InferError where outputs are not finite.
        """


def load_pipeline() -> Pipeline:
    """The stages that are shipped."""
    pipeline: Pipeline = load_by_name("stages.inline:PIPELINE")
    return pipeline
