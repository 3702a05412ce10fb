"""What the Open Inference Protocol says of a model: metadata and configuration. Pure.

A model is there twice. `NAME` is the ONNX file: its own inputs and outputs. `NAME.picture` takes encoded pictures and
gives what the pipeline makes of them. Clients that know the protocol from Triton read the configuration's fields by
Triton's names; Ultralytics evaluates `parameters["metadata"]` as a Python literal.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import msgspec

from parallel_infer.chains.steps import JOIN
from parallel_infer.doors.tensors import BYTES, datatype_of
from parallel_infer.model_spec import FILE, PICTURE

PLATFORM = "onnxruntime_onnx"
_STATES = {"ready": "READY", "degraded": "READY", "loading": "LOADING"}
_YOLO_TASKS = {"keypoints": "pose"}  # Ultralytics' names where they differ from ours


class Port(msgspec.Struct, frozen=True):
    """An input or output of a file; -1 is a dimension of any size, the batch included; `axis` is where that stands."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    axis: int | None = 0

    @property
    def datatype(self) -> str:
        """The protocol's name of the element type."""
        return datatype_of(self.dtype) if self.dtype != "object" else BYTES


class ModelView(msgspec.Struct, frozen=True, kw_only=True, dict=True):  # the dictionary is for what is found out once
    """A model as the gateway describes it to a door."""

    name: str
    version: int
    task: str
    family: str
    classes: tuple[str, ...] = ()
    inputs: tuple[Port, ...]  # of the file
    outputs: tuple[Port, ...]
    row: tuple[int, int] = (0, 0)  # height and width of a row of pixels; (0, 0) where it takes no pictures
    keypoints: int = 0
    properties: Mapping[str, str] = {}  # the file's metadata
    max_batch_size: int = 1
    instances: int = 1
    thresholds: Mapping[str, float] = {}  # the model's own confidence and iou, where it has some
    digest: str = ""
    chain: str = ""  # its steps, or the names of a fan: it has no tensors of its own, and NAME alone means pictures
    models: tuple[str, ...] = ()  # of a chain or a fan, those that take part

    @property
    def takes_pictures(self) -> bool:
        """Whether there is a `NAME.picture`."""
        return self.row != (0, 0)

    @property
    def file_model(self) -> str:
        """The name under which the gateway takes the file's own tensors."""
        return self.name if self.task == "tensor" and not self.takes_pictures else self.name + FILE

    @cached_property
    def splits(self) -> bool:
        """Whether the first dimension of every input and output is the batch, so that each row is a job."""
        return all(port.axis == 0 for port in (*self.inputs, *self.outputs))

    @cached_property
    def batches(self) -> bool:
        """Whether that dimension is open."""
        return self.splits and all(port.shape[0] == -1 for port in (*self.inputs, *self.outputs))

    def served(self, picture: bool) -> tuple[tuple[Port, ...], tuple[Port, ...], int]:
        """Inputs, outputs and the largest batch (0: the first dimension is no batch) under one of its two names."""
        if picture:
            return self._picture_ports
        return self.inputs, self.outputs, max(1, self.max_batch_size) if self.batches else 0

    @cached_property
    def _picture_ports(self) -> tuple[tuple[Port, ...], tuple[Port, ...], int]:
        return (Port("image", "object", (-1, 1)),), self._picture_outputs(), max(1, self.max_batch_size)

    def _picture_outputs(self) -> tuple[Port, ...]:
        answer = Port("answer", "object", (-1, 1))
        scores, classes = Port("scores", "float32", (-1, -1)), Port("classes", "int32", (-1, -1))
        if self.task == "classify":
            return scores, classes, answer
        if self.task not in ("detect", "segment", "keypoints", "obb"):
            return (answer,)
        extra: tuple[Port, ...] = ()
        if self.task == "keypoints":
            extra = (Port("keypoints", "float32", (-1, -1, self.keypoints or 17, 3)),)
        elif self.task == "obb":
            extra = (Port("angles", "float32", (-1, -1)),)
        boxes = Port("boxes", "float32", (-1, -1, 4))
        return Port("num_detections", "int32", (-1, 1)), boxes, scores, classes, *extra, answer


def fan_view(name: str, models: Mapping[str, ModelView]) -> ModelView | None:
    """Several models asked together, as one; None where `name` does not join names of models that take pictures."""
    names = name.split(JOIN)
    taking = [view for part in names if (view := models.get(part)) is not None and view.takes_pictures]
    if len(names) < 2 or len(taking) < len(names) or len(set(names)) < len(names):
        return None
    most = min(view.max_batch_size for view in taking)
    return ModelView(
        name=name,
        version=1,
        task="fan",
        family="fan",
        inputs=(),
        outputs=(),
        row=taking[0].row,
        max_batch_size=most,
        chain=name,
        models=tuple(model for view in taking for model in view.models or (view.name,)),
    )


def is_ready(view: ModelView, states: Mapping[str, str]) -> bool:
    """Whether a model is served, or every model that takes part, by the states that models are in."""
    return all(_STATES.get(states.get(name, "")) == "READY" for name in view.models or (view.name,))


def repository_index(
    models: Mapping[str, ModelView], states: Mapping[str, str], only_ready: bool
) -> list[dict[str, str]]:
    """Every name there is, with its version and Triton's word for the state that it has in `states`."""
    rows = []
    for name in sorted({*models, *states}):
        state = _STATES.get(states.get(name, "ready"), "UNAVAILABLE")
        if name in models and models[name].models and not is_ready(models[name], states):
            state = "UNAVAILABLE"
        if only_ready and state != "READY":
            continue
        version = str(models[name].version) if name in models else ""
        both = (name, name + PICTURE) if name in models and models[name].takes_pictures else (name,)
        rows += [{"name": each, "version": version, "state": state, "reason": ""} for each in both]
    return rows


def metadata(view: ModelView, picture: bool) -> dict[str, Any]:
    """The answer to GET /v2/models/NAME: shapes include the batch, -1 is any size."""
    inputs, outputs, _ = view.served(picture)
    return {
        "name": view.name + PICTURE * picture,
        "versions": [str(view.version)],
        "platform": PLATFORM,
        "inputs": [_described(port) for port in inputs],
        "outputs": [_described(port) for port in outputs],
    }


def _described(port: Port) -> dict[str, Any]:
    return {"name": port.name, "datatype": port.datatype, "shape": list(port.shape)}


def configuration(view: ModelView, picture: bool) -> dict[str, Any]:
    """The answer to GET /v2/models/NAME/config, as Triton writes it: dims leave the batch out where there is one."""
    inputs, outputs, batch = view.served(picture)
    skip = 1 if batch else 0
    return {
        "name": view.name + PICTURE * picture,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": batch,
        "input": [
            {
                "name": port.name,
                "data_type": _configured_type(port),
                "format": "FORMAT_NONE" if picture else _format_of(port),
                "dims": list(port.shape[skip:]),
            }
            for port in inputs
        ],
        "output": [
            {
                "name": port.name,
                "data_type": _configured_type(port),
                "dims": list(port.shape[skip:]),
                "label_filename": "",
            }
            for port in outputs
        ],
        "instance_group": [{"name": view.name, "kind": "KIND_AUTO", "count": view.instances}],
        "dynamic_batching": {},
        "parameters": {"metadata": {"string_value": repr(ultralytics_metadata(view))}},
    }


def _configured_type(port: Port) -> str:
    return "TYPE_STRING" if port.datatype == BYTES else f"TYPE_{port.datatype}"


def _format_of(port: Port) -> str:
    """Triton's word for a picture's layout; image_client.py refuses a model whose input says FORMAT_NONE."""
    channels_first = len(port.shape) == 4 and port.shape[1] in (1, 3)
    return "FORMAT_NCHW" if channels_first else "FORMAT_NONE"


def ultralytics_metadata(view: ModelView) -> dict[str, str]:
    """What Ultralytics reads of a served model: the file's own metadata, and what it needs where that is missing.

    Every value is text, as in an ONNX file. Where the server fixed the dimensions of a picture, `dynamic` is False,
    so that pictures come in this size.
    """
    found = dict(view.properties)
    height, width = view.row
    found.setdefault("task", _YOLO_TASKS.get(view.task, view.task))
    found.setdefault("stride", "32")
    found.setdefault("batch", "1")
    found["imgsz"] = repr([height, width]) if view.takes_pictures else found.get("imgsz", "[640, 640]")
    found.setdefault("names", repr(dict(enumerate(view.classes))))
    if view.keypoints:
        found.setdefault("kpt_shape", repr([view.keypoints, 3]))
    found["args"] = repr({"dynamic": False})
    return found
