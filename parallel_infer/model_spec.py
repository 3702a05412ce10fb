"""What a model is, as far as the pipeline cares: its tensors, its task and where the file lies.

`ModelSpec` is made once at load from the ONNX file and the configuration (`stages.families`), and is then handed to
every process. It is plain data; `preprocess` and `parameters` are read by the stages alone.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec

PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]


class TensorSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """One input or output of a model. `shape` is that of one job: the batch dimension is left out.

    A dimension of -1 in an output is known only after a run (an exported NMS, for example). `axis` is where the graph
    has the batch: 0 almost always. Where it stands elsewhere, or where the tensor has none (None), jobs run one by one.
    `usual` is what stands in for an input where no job gives one, before it is served and in a check of readiness: 0,
    or another whole number where the graph refuses that.
    """

    name: str
    dtype: str  # NumPy's name: "float32", "uint8", "int64", "float16", "bool" ...
    shape: tuple[int, ...]
    axis: int | None = 0
    usual: int = 0

    @property
    def size(self) -> int:
        """Bytes of one job's tensor; 0 where a dimension is not known."""
        import numpy as np  # here: commands that only read a configuration do without

        return max(0, math.prod(self.shape)) * np.dtype(self.dtype).itemsize if -1 not in self.shape else 0


class FilePort(msgspec.Struct, frozen=True):
    """An input or output as the file declares it; -1 is a dimension of any size, the batch included.

    `axis` is where the batch stands, as in `TensorSpec`.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    axis: int | None = 0


class ModelFile(msgspec.Struct, frozen=True):
    """What an ONNX file says of itself. Dimensions of inputs that the server fixed are shown fixed."""

    inputs: tuple[FilePort, ...] = ()
    outputs: tuple[FilePort, ...] = ()
    properties: dict[str, str] = {}  # metadata_props


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A model as it is served."""

    name: str
    path: str  # where its processes read it: the run's own copy, or the file itself where there is none
    digest: str = ""  # SHA-256 of what was looked into, see parallel_infer.model_files.content; "": not from a file
    data_files: tuple[str, ...] = ()  # with weights, by their names beside the file
    task: str  # one of `stages.pipeline.TASKS`
    family: str  # how its outputs are laid out, e.g. "yolov8", "rtdetr"; see docs/models.md
    evidence: tuple[str, ...] = ()  # how task and family were decided, one sentence each
    warnings: tuple[str, ...] = ()  # what the user should know: fixed batch, ambiguous layout
    names: tuple[str, ...] = ()  # class names by class number
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch: int | None = None  # the batch size the graph demands; None where any size will do
    largest_batch: int | None = None  # the largest batch that gives right answers, where that is known
    preprocess: dict[str, Any] = {}  # stages.preprocess.Preprocess, as a map
    parameters: dict[str, Any] = {}  # of the task: confidence, iou, kpt_shape ...
    options: tuple[str, ...] | None = None  # that a request may give; None: not known
    file: ModelFile = ModelFile()

    @property
    def row_size(self) -> int:
        """Bytes of one job's inputs."""
        return sum(tensor.size for tensor in self.inputs)


SERVED = "served:"  # begins the path of what is loaded from the file of a model that is served: served:NAME
PICTURE = ".picture"  # ends the names under which doors offer models that take pictures
FILE = "@file"  # ends the names under which doors have the unchanged graphs of models served


def is_hidden(name: str) -> bool:
    """Whether a model is there for doors alone: NAME@file is the unchanged graph of NAME."""
    return name.endswith(FILE)
