"""From a file to a `ModelSpec`: the steps in the order in which they need one another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from parallel_infer.errors import ModelRejected
from parallel_infer.model_spec import ModelSpec, TensorSpec
from stages.families import export_command
from stages.families.facts import Facts, Metadata
from stages.families.family import Fit
from stages.numbers import is_number
from stages.recognise.axes import Declared, declared_batch, whole, without
from stages.recognise.batching import NoBatch, Tried, try_batches
from stages.recognise.decision import Verdict, decide
from stages.recognise.effects import without_effect
from stages.recognise.graph import Graph, read_graph
from stages.recognise.metadata import parse_metadata
from stages.recognise.overrides import Overrides, parse_overrides
from stages.recognise.parameters import task_parameters
from stages.recognise.picture import Picture, find_picture, guesses, preprocess_map
from stages.recognise.ports import file_of
from stages.recognise.shapes import (
    PICTURE_SHAPE,
    PIXEL_MASK,
    SCALE_FACTOR,
    TARGET_SIZES,
    Row,
    Shapes,
    check_inputs,
    row_of,
)
from stages.recognise.trial import Port, Trial

_WITHOUT_CLASSES = ("tensor", "map", "embedding")
_COLORS = 3  # channels
_TENSOR = Verdict("tensor", "tensor", Fit(0, ""), (), ())


def describe(name: str, path: str | Path, overrides: Mapping[str, Any] = {}) -> ModelSpec:
    """What the ONNX model at `path` is, and how it is fed and read. `overrides` are the user's options of a model.

    Loads the model on one CPU thread and runs it a few times. Raises ModelRejected where it cannot be served, with
    what was found and what was expected, and ConfigError for an override that is unknown or does not fit.
    """
    options, file = parse_overrides(overrides), Path(path)
    graph = read_graph(file)
    metadata = parse_metadata(graph.properties)
    trial = Trial(file)
    check_inputs(graph, trial.inputs, options)
    declared = declared_batch(trial.inputs, options.shapes)
    try:
        fed = _feed(graph, trial, declared, metadata, options)
    except NoBatch as failure:
        note = f"{declared.because}, which is no batch ({failure}): its inputs and outputs are those of one job"
        fed = _feed(graph, trial, whole(trial.inputs), metadata, options)
        fed = msgspec.structs.replace(fed, notes=(note, *fed.notes))
    return _spec(name, file, graph, fed, metadata, options)


class _Fed(Struct, frozen=True, kw_only=True):
    """How the model is fed, and what came out."""

    declared: Declared
    inputs: tuple[Port, ...]  # as the file declares them
    outputs: tuple[Port, ...]
    jobs: tuple[Port, ...]  # inputs of one job
    picture: Picture | None
    row: Row
    constants: dict[str, list[float]]
    tried: Tried
    notes: tuple[str, ...]


def _feed(graph: Graph, trial: Trial, declared: Declared, metadata: Metadata, options: Overrides) -> _Fed:
    jobs = tuple(port._replace(dims=without(port.dims, declared.axes[port.name])) for port in trial.inputs)
    picture, notes = _picture(jobs, options)
    row = row_of(jobs, picture, metadata, options)
    constants = _constants(row.shapes, picture)
    cap = metadata.batch if metadata.nms else None
    tried = try_batches(graph, trial, declared, row.shapes, constants, cap, metadata.nms)
    return _Fed(
        declared=declared,
        inputs=trial.inputs,
        outputs=trial.outputs,
        jobs=jobs,
        picture=picture,
        row=row,
        constants=constants,
        tried=tried,
        notes=notes,
    )


def _spec(name: str, file: Path, graph: Graph, fed: _Fed, metadata: Metadata, options: Overrides) -> ModelSpec:
    picture, row, tried = fed.picture, fed.row, fed.tried
    facts = _facts(graph, fed, metadata, options)
    verdict = decide(facts, options) if picture is not None else _TENSOR
    _check_guess(verdict, row, picture)
    names = _names(verdict, metadata, options)
    preprocess: dict[str, Any] = {}
    scaled = graph.scaled.get(picture.port.name) if picture is not None else None
    evidence = verdict.evidence
    guess = None
    if picture is not None and scaled is not None:
        what = "pixels of 0..255" if scaled.takes_pixels else "fractions of 0..1"
        evidence = (*evidence, f"the graph rescales its picture itself, from {what}")
    if picture is not None and (verdict.fit.guessed or verdict.task == "tensor"):
        guess = guesses(picture, verdict.recipe, metadata, options, scaled is not None)
    if picture is not None:
        preprocess = preprocess_map(picture, facts.size, verdict.recipe, metadata, options, fed.constants, scaled)
    inputs = tuple(_input(port, row.shapes[port.name], fed) for port in fed.jobs)
    return ModelSpec(
        name=name,
        path=str(file),
        task=verdict.task,
        family=verdict.family,
        evidence=evidence,
        warnings=(
            *_warnings(verdict, fed, metadata, names),
            *((guess,) if guess is not None else ()),
            *without_effect(options, verdict, picture, preprocess),
        ),
        names=names,
        inputs=inputs,
        file=file_of(graph, fed.inputs, fed.outputs, inputs, tried.specs),
        outputs=tried.specs,
        batch=tried.batch,
        largest_batch=tried.most,
        preprocess=preprocess,
        parameters=task_parameters(verdict, facts, options),
    )


def _input(port: Port, shape: tuple[int, ...], fed: _Fed) -> TensorSpec:
    usual = fed.tried.number if is_number(port.dtype, shape) else 0
    return TensorSpec(port.name, port.dtype, shape, fed.declared.axes[port.name], usual)


def _names(verdict: Verdict, metadata: Metadata, options: Overrides) -> tuple[str, ...]:
    if verdict.task == "tensor":
        return ()
    listed = metadata.character if len(metadata.character) == verdict.fit.nc else ()
    if verdict.task == "text":
        return verdict.fit.names
    return options.names or metadata.names or listed or verdict.fit.names


def _picture(jobs: tuple[Port, ...], options: Overrides) -> tuple[Picture | None, tuple[str, ...]]:
    """The picture input, or None and the reason why this is a model of plain tensors."""
    picture = _found_picture(jobs, options)
    asked = "tensor" in (options.family, options.task)
    if asked and (picture is None or not _takes_pictures(picture, options)):
        return None, ()
    others = [port.name for port in jobs if picture is None or port.name != picture.port.name]
    unknown = [name for name in others if name not in (TARGET_SIZES, PIXEL_MASK, SCALE_FACTOR, PICTURE_SHAPE)]
    if picture is not None and not unknown:
        return picture, ()
    if asked:
        return None, ()
    found = "; ".join(map(str, jobs))
    reason = f"not a picture model: its inputs are {found}; a picture has float32, float16 or uint8 and 1 or 3 channels"
    if picture is not None:
        reason = f"besides its picture the model has inputs of unknown meaning: {', '.join(unknown)}"
    if options.family is not None or options.task is not None:
        raise ModelRejected(f"cannot do {options.family or options.task}: {reason}")
    return None, (f"{reason}: it is served as raw tensors",)


def _found_picture(jobs: tuple[Port, ...], options: Overrides) -> Picture | None:
    """The picture input by what the file declares, else by the shapes that the user gives for what it leaves open."""
    picture = find_picture(jobs)
    if picture is not None or not options.shapes:
        return picture
    given = tuple(port._replace(dims=options.shapes.get(port.name, port.dims)) for port in jobs)
    picture = find_picture(given)
    if picture is None or picture.channels != _COLORS:
        return None
    return picture._replace(port=next(port for port in jobs if port.name == picture.port.name))


def _takes_pictures(picture: Picture, options: Overrides) -> bool:
    """Whether the shape that the user gives, if any, is that of a picture."""
    given = options.shapes.get(picture.port.name)
    return given is None or (len(given) == 3 and given[picture.channel] == picture.channels)


def _constants(shapes: Shapes, picture: Picture | None) -> dict[str, list[float]]:
    """Inputs that are the same in every row: the row's own size, so that boxes come in its pixels; a mask of ones."""
    constants: dict[str, list[float]] = {}
    if picture is None:
        return constants
    if TARGET_SIZES in shapes:
        height, width = _size(shapes, picture)
        constants[TARGET_SIZES] = [float(width), float(height)]
    if SCALE_FACTOR in shapes:
        constants[SCALE_FACTOR] = [1.0, 1.0]  # boxes come in pixels of the row
    if PICTURE_SHAPE in shapes:
        height, width = _size(shapes, picture)
        constants[PICTURE_SHAPE] = [float(height), float(width)]
    if PIXEL_MASK in shapes:
        constants[PIXEL_MASK] = [1.0] * int(np.prod(shapes[PIXEL_MASK]))
    return constants


def _size(shapes: Shapes, picture: Picture) -> tuple[int, int]:
    shape = shapes[picture.port.name]
    return shape[picture.axes[0]], shape[picture.axes[1]]


def _facts(graph: Graph, fed: _Fed, metadata: Metadata, options: Overrides) -> Facts:
    row, picture, tried = fed.row, fed.picture, fed.tried
    names = options.names or metadata.names
    return Facts(
        outputs={name: array.shape for name, array in tried.outputs.items()},
        arrays=tried.outputs,
        others=(tried.other,),
        operators=graph.operators,
        inputs=tuple(row.shapes),
        size=_size(row.shapes, picture) if picture is not None else (0, 0),
        nc=len(names) or None,
        names=names,
        varying=frozenset(spec.name for spec in tried.specs if spec.shape[:1] == (-1,)),
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


def _warnings(verdict: Verdict, fed: _Fed, metadata: Metadata, names: tuple[str, ...]) -> tuple[str, ...]:
    tried = fed.tried
    warnings = [*fed.notes, *verdict.warnings, *fed.row.warnings]
    export = verdict.fit.parameters.get("export") or export_command(verdict.family)
    command = f"Export with a dynamic batch: {export}"
    if tried.one_by_one:
        warnings.append(f"{tried.reason}: jobs run one by one")
    elif tried.batch is not None:
        warnings.append(f"{tried.reason}: jobs cannot be batched freely. {command}")
    elif tried.most is not None:
        warnings.append(f"{tried.reason}: batches are of at most {tried.most}")
    if verdict.task not in _WITHOUT_CLASSES and not names:
        warnings.append("the file holds no class names, so classes are numbers; set names to name them")
    warnings.extend(f"the metadata's {key!r} could not be read and is ignored" for key in metadata.unreadable)
    return tuple(warnings)
