"""From a file to a `ModelSpec`: the steps in the order in which they need one another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from parallel_infer.errors import ModelRejected
from parallel_infer.models import ModelSpec, TensorSpec
from stages.families import export_command
from stages.families.facts import Facts, Metadata
from stages.families.family import Fit
from stages.recognise.batching import Tried, output_specs, try_batches
from stages.recognise.decision import Verdict, decide
from stages.recognise.effects import without_effect
from stages.recognise.graph import read_graph
from stages.recognise.metadata import parse_metadata
from stages.recognise.overrides import Overrides, parse_overrides
from stages.recognise.parameters import task_parameters
from stages.recognise.picture import Picture, find_picture, preprocess_map
from stages.recognise.shapes import PIXEL_MASK, TARGET_SIZES, Row, Shapes, row_of
from stages.recognise.trial import Trial

_TENSOR = Verdict("tensor", "tensor", Fit(0, ""), (), ())


def describe(name: str, path: str | Path, overrides: Mapping[str, Any] = {}) -> ModelSpec:
    """What the ONNX model at `path` is, and how it is fed and read. `overrides` are the user's options of a model.

    Loads the model on one CPU thread and runs it once or twice. Raises ModelRejected where it cannot be served, with
    what was found and what was expected, and ConfigError for an override that is unknown or does not fit.
    """
    options, file = parse_overrides(overrides), Path(path)
    graph = read_graph(file)
    metadata = parse_metadata(graph.properties)
    trial = Trial(file)
    picture, notes = _picture(trial, options)
    row = row_of(graph, trial.inputs, picture, metadata, options)
    constants = _constants(row.shapes, picture)
    tried = try_batches(graph, trial, row.shapes, constants)
    facts = _facts(row, picture, tried, metadata, options)
    verdict = decide(facts, options) if picture is not None else _TENSOR
    _check_guess(verdict, row, picture)
    names = () if verdict.task == "tensor" else options.names or metadata.names
    preprocess: dict[str, Any] = {}
    if picture is not None and verdict.task != "tensor":
        preprocess = preprocess_map(picture, facts.size, verdict.recipe, metadata, options, constants)
    return ModelSpec(
        name=name,
        path=str(file),
        task=verdict.task,
        family=verdict.family,
        evidence=verdict.evidence,
        warnings=(
            *_warnings(verdict, row, notes, tried, metadata, names),
            *without_effect(options, verdict, picture, preprocess),
        ),
        names=names,
        inputs=tuple(TensorSpec(port.name, port.dtype, row.shapes[port.name]) for port in trial.inputs),
        outputs=output_specs(graph, trial.outputs, tried, metadata.nms),
        batch=tried.batch,
        preprocess=preprocess,
        parameters=task_parameters(verdict, facts, options),
    )


def _picture(trial: Trial, options: Overrides) -> tuple[Picture | None, tuple[str, ...]]:
    """The picture input, or None and the reason why this is a model of plain tensors."""
    if "tensor" in (options.family, options.task):
        return None, ()
    picture = find_picture(trial.inputs)
    others = [port.name for port in trial.inputs if picture is None or port.name != picture.port.name]
    unknown = [name for name in others if name not in (TARGET_SIZES, PIXEL_MASK)]
    if picture is not None and not unknown:
        return picture, ()
    found = "; ".join(map(str, trial.inputs))
    reason = f"not a picture model: its inputs are {found}; a picture has float32, float16 or uint8 and 3 channels"
    if picture is not None:
        reason = f"besides its picture the model has inputs of unknown meaning: {', '.join(unknown)}"
    if options.family is not None or options.task is not None:
        raise ModelRejected(f"cannot do {options.family or options.task}: {reason}")
    return None, (f"{reason}: it is served as raw tensors",)


def _constants(shapes: Shapes, picture: Picture | None) -> dict[str, list[float]]:
    """Inputs that are the same in every row: the row's own size, so that boxes come in its pixels; a mask of ones."""
    constants: dict[str, list[float]] = {}
    if picture is None:
        return constants
    if TARGET_SIZES in shapes:
        height, width = _size(shapes, picture)
        constants[TARGET_SIZES] = [float(width), float(height)]
    if PIXEL_MASK in shapes:
        constants[PIXEL_MASK] = [1.0] * int(np.prod(shapes[PIXEL_MASK]))
    return constants


def _size(shapes: Shapes, picture: Picture) -> tuple[int, int]:
    shape = shapes[picture.port.name]
    return shape[picture.axes[0] - 1], shape[picture.axes[1] - 1]


def _facts(row: Row, picture: Picture | None, tried: Tried, metadata: Metadata, options: Overrides) -> Facts:
    names = options.names or metadata.names
    return Facts(
        outputs={name: array.shape[1:] for name, array in tried.outputs.items()},
        arrays={name: array[0] for name, array in tried.outputs.items()},
        inputs=tuple(row.shapes),
        size=_size(row.shapes, picture) if picture is not None else (0, 0),
        nc=len(names) or None,
        kpt_shape=options.kpt_shape or metadata.kpt_shape,
        background=options.background,
        metadata=metadata,
        task=options.task or metadata.task,
        task_by="metadata" if options.task is None else "the user",
    )


def _check_guess(verdict: Verdict, row: Row, picture: Picture | None) -> None:
    if verdict.task == "tensor" and row.guessed and picture is not None:
        raise ModelRejected(
            f"input {picture.port} leaves dimensions open besides the batch, and the outputs are of no known family; "
            f"give the shape with shapes = {{{picture.port.name} = [...]}}, without the batch dimension"
        )


def _warnings(
    verdict: Verdict, row: Row, notes: tuple[str, ...], tried: Tried, metadata: Metadata, names: tuple[str, ...]
) -> tuple[str, ...]:
    warnings = [*notes, *verdict.warnings, *row.warnings]
    if tried.batch is not None:
        command = export_command(verdict.family)
        warnings.append(f"{tried.reason}: jobs cannot be batched freely. Export with a dynamic batch: {command}")
    if verdict.task != "tensor" and not names:
        warnings.append("the file holds no class names, so classes are numbers; set names to name them")
    warnings.extend(f"the metadata's {key!r} could not be read and is ignored" for key in metadata.unreadable)
    return tuple(warnings)
