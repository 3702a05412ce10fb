"""The pipeline: which code runs in which kind of process, in the order a picture meets it.

The engine loads everything here by name. To add a task, write one file in `stages/tasks` and one line in `TASKS`.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from parallel_infer.errors import ConfigError
from parallel_infer.ipc.messages import ModelPlan, Probed
from parallel_infer.loading import load_by_name
from parallel_infer.model_files.digest import check_unchanged
from parallel_infer.model_spec import ModelSpec, TensorSpec
from parallel_infer.process.child import Child
from parallel_infer.process.options import ProbeOptions
from parallel_infer.process.sandbox.confinement import limit_probe
from stages.batch import AutoBatch
from stages.tasks import Task

STAGES = {
    "decode": "stages.decode:Decode",
    "infer": "stages.infer:Infer",
    "postprocess": "stages.postprocess:Postprocess",
}

TASKS = {
    "classify": "stages.tasks.classify:Classify",
    "detect": "stages.tasks.detect:Detect",
    "embedding": "stages.tasks.embedding:Embedding",
    "keypoints": "stages.tasks.keypoints:Keypoints",
    "map": "stages.tasks.map:Map",
    "obb": "stages.tasks.obb:OrientedBoxes",
    "segment": "stages.tasks.segment:Segment",
    "semantic": "stages.tasks.semantic:Semantic",
    "tensor": "stages.tasks.tensor:Tensors",
    "text": "stages.tasks.text:Text",
}


def task_for(spec: ModelSpec) -> Task:
    """The task object of a model. Raises ConfigError for a task nobody knows."""
    try:
        path = TASKS[spec.task]
    except KeyError:
        raise ConfigError(f"unknown task {spec.task!r}; known are {', '.join(sorted(TASKS))}") from None
    task: Task = load_by_name(path)(spec)
    return task


def check_options(spec: ModelSpec, options: bytes) -> None:
    """Raises BadInput for options of a request, a MessagePack map, that a model does not take."""
    task_for(spec).options(options)


def batching(plan: ModelPlan) -> AutoBatch:
    """The batching policy of a model."""
    return AutoBatch(
        max_batch=plan.max_batch,
        preferred=plan.preferred_batch,
        fixed=plan.fixed_batch,
        max_delay=plan.max_queue_delay,
    )


def probe(child: Child, encoded: bytes) -> None:
    """Entry point of a throwaway process that finds out what a model file is."""
    options = msgspec.msgpack.decode(encoded, type=ProbeOptions)
    path = Path(options.path)
    limit_probe(path, options.start_timeout)
    from stages.graph import Rewritten, with_uint8_input
    from stages.preprocess import Preprocess
    from stages.recognise import describe
    from stages.recognise.held import hold

    held = hold(path, options.order, options.known)
    if held is None:
        child.tell(Probed(None))
        return
    spec = describe(options.name, held.path, msgspec.msgpack.decode(options.overrides))
    warnings = (held.warning, *spec.warnings) if held.warning else spec.warnings
    spec = msgspec.structs.replace(spec, digest=held.digest, data_files=held.data_files, warnings=warnings)
    if held.path == path:
        check_unchanged(spec)  # nobody wrote to it while it was looked into
    if options.uint8_rows and spec.preprocess and spec.task != "tensor":  # of tensors every value counts
        preprocess = msgspec.convert(spec.preprocess, Preprocess)
        if isinstance(with_uint8_input(spec.path, preprocess), Rewritten):
            spec = msgspec.structs.replace(spec, inputs=small_rows(spec, preprocess.height, preprocess.width))
    options = task_for(spec).options(b"\x80")  # refuses parameters out of range before anything starts
    spec = msgspec.structs.replace(spec, options=tuple(getattr(options, "__struct_fields__", ())))
    child.tell(Probed(spec))


def small_rows(spec: ModelSpec, height: int, width: int) -> tuple[TensorSpec, ...]:
    """The inputs of a model whose graph normalises by itself: uint8 pixels, a quarter of the size."""
    picture = spec.preprocess["input"]
    return tuple(
        TensorSpec(tensor.name, "uint8", (height, width, 3)) if tensor.name == picture else tensor
        for tensor in spec.inputs
    )
