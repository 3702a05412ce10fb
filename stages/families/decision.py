"""Which family a model belongs to. Rules are asked in order, and the first candidate whose outputs fit wins.

The user's word, then the names of inputs and outputs, then the metadata, and only then the shapes: shapes alone
mis-decode, so a decision by shape comes with a warning.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
from msgspec import Struct

from parallel_infer.errors import ModelRejected
from stages.families.catalogue import FAMILIES, OWN, OWN_TASKS, TASKS
from stages.families.layouts import MOST_ROWS, STRIDES, Facts, Fit, extra_columns, fit, objectness_family
from stages.families.metadata import Metadata
from stages.families.overrides import Overrides

_FRACTIONS = 2.0  # boxes that stay below are fractions of the picture, some of them reaching beyond its edge


class Candidate(Struct, frozen=True):
    """A family and task that the model may be, and why."""

    family: str
    task: str
    evidence: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Verdict(Struct, frozen=True):
    """What the model is."""

    family: str
    task: str
    fit: Fit
    evidence: tuple[str, ...]
    warnings: tuple[str, ...]


def decide(facts: Facts, metadata: Metadata, overrides: Overrides) -> Verdict:
    """The first candidate that fits, else raw tensors.

    Raises ModelRejected where the user named a family or task and the outputs do not fit it.
    """
    task = overrides.task or metadata.task
    if task is not None and task in OWN_TASKS and overrides.family in (None, OWN):
        who = "the user" if overrides.task is not None else "metadata"
        return Verdict(OWN, task, Fit(0, ""), (f"{who} names the task: {task}",), ())
    candidates = list(_candidates(facts, metadata, overrides))
    misfits = []
    for known in (facts, msgspec.structs.replace(facts, nc=None)) if facts.nc is not None else (facts,):
        for candidate in candidates:
            result = fit(candidate.family, candidate.task, known)
            if isinstance(result, Fit):
                return _verdict(candidate, result, facts.nc)
            misfits.append(f"not {candidate.family} ({candidate.task}): {result.why}")
    if overrides.family is not None or overrides.task is not None:
        wanted = f"family {overrides.family}" if overrides.family is not None else f"task {overrides.task}"
        reasons = "; ".join(dict.fromkeys(misfits)) or f"no family for it has such outputs: {dict(facts.outputs)}"
        raise ModelRejected(f"the outputs do not fit the {wanted} that was asked for: {reasons}")
    return _as_tensors(tuple(dict.fromkeys(misfits)), metadata)


def _verdict(candidate: Candidate, result: Fit, named: int | None) -> Verdict:
    warnings = candidate.warnings
    if named is not None and result.nc and named != result.nc:
        warnings += (f"there are {named} class names for {result.nc} classes; set names to correct them",)
    return Verdict(candidate.family, candidate.task, result, (*candidate.evidence, result.because), warnings)


def _as_tensors(misfits: tuple[str, ...], metadata: Metadata) -> Verdict:
    known = metadata.task is None or metadata.task in TASKS
    found = f"the metadata names the task {metadata.task!r}, which has no decoder" if not known else "unknown outputs"
    warning = f"{found}: answers are the raw output tensors; set family and task to have them decoded"
    evidence = misfits or ("no rule recognises these inputs and outputs",)
    return Verdict("tensor", "tensor", Fit(0, ""), evidence, (warning,))


def _candidates(facts: Facts, metadata: Metadata, overrides: Overrides) -> Iterator[Candidate]:
    if overrides.family is not None:
        yield from _by_family(overrides.family, facts, metadata, overrides)
        return
    task = overrides.task or metadata.task
    named = [candidate for candidate in _by_port_names(facts) if overrides.task in (None, candidate.task)]
    yield from named
    if task is None:
        yield from _by_shape(facts)
    elif not named:
        who = "the user" if overrides.task is not None else "metadata"
        yield from _by_task(task, f"{who} names the task: {task}", facts, metadata)


def _by_family(family: str, facts: Facts, metadata: Metadata, overrides: Overrides) -> Iterator[Candidate]:
    """The user named the family: its tasks, first the one that is named too, then those with more outputs."""
    evidence = (f"the user names the family: {family}",)
    tasks = FAMILIES[family]
    named = overrides.task or metadata.task
    if named in tasks:
        yield Candidate(family, str(named), evidence)
    if overrides.task is None:
        order = ("segment", "classify", "detect", "obb", "keypoints", "tensor")
        yield from (Candidate(family, task, evidence) for task in order if task in tasks and task != named)


def _by_port_names(facts: Facts) -> Iterator[Candidate]:
    outputs = set(facts.outputs)
    if "orig_target_sizes" in facts.inputs:
        yield Candidate("rtdetr", "detect")
    if {"dets", "labels"} <= outputs:
        yield Candidate("rfdetr", "segment" if "masks" in outputs else "detect")
    if {"logits", "pred_boxes"} <= outputs:
        masks = ("the masks of this DETR are not decoded, only its boxes",) if "pred_masks" in outputs else ()
        yield Candidate("detr", "detect", (), masks)


def _by_task(task: str, because: str, facts: Facts, metadata: Metadata) -> Iterator[Candidate]:
    if task == "classify":
        yield Candidate("classifier", task, (because,))
        return
    if task == "tensor":
        yield Candidate("tensor", task, (because,))
        return
    if task not in FAMILIES["yolov8"]:
        return
    if task == "detect" and metadata.is_rtdetr:
        yield from _rtdetr_of_ultralytics(because, metadata)
    if metadata.nms or metadata.end2end:
        flag = "nms" if metadata.nms else "end2end"
        yield Candidate("end2end", task, (because, f"metadata says {flag}: objects come out ready"))
    yield Candidate("yolov8", task, (because,))
    yield Candidate("yolov5", task, (because,))
    # For two classes [queries, 4 + 2] looks like ready objects, whose boxes are pixels more often than not.
    if task == "detect" and _reach(facts) <= _FRACTIONS:
        yield Candidate("rtdetr-ultralytics", task, (because,))
    contradiction = "; metadata says end2end False" if metadata.end2end is False else ""
    for candidate in _ready_objects(facts, task):
        yield msgspec.structs.replace(
            candidate, evidence=(because, *candidate.evidence), warnings=(candidate.warnings[0] + contradiction,)
        )


def _rtdetr_of_ultralytics(because: str, metadata: Metadata) -> Iterator[Candidate]:
    """Newer exports name their head and come out as [queries, 6]; for two classes both layouts have six columns."""
    evidence = (because, "metadata names an RT-DETR")
    families = ["rtdetr-ultralytics", "rtdetr-ultralytics-end2end"]
    if metadata.head or metadata.end2end:
        families.reverse()
    yield from (Candidate(family, "detect", evidence) for family in families)


def _by_shape(facts: Facts) -> Iterator[Candidate]:
    table = facts.only_of_rank(2)
    if table is None:
        if facts.class_scores is not None:
            yield _classifier_by_shape(facts)
        return
    rows, columns = table[1]
    segments = facts.only_of_rank(3) is not None
    ready = {6: "detect", 7: "obb"}.get(columns)
    if segments and columns == 6 + (extra_columns(facts, "segment") or 0):
        ready = "segment"
    if ready is not None and columns < rows <= MOST_ROWS:
        yield from _ready_objects(facts, ready)
    elif rows < columns and (columns == facts.cells(STRIDES) or objectness_family(facts) is None):
        yield from _channels_first(facts, rows, segments)
    else:
        yield from _rows_of_anchors(facts, segments)


_NO_METADATA = "no metadata names the task; decided by shape"


def _classifier_by_shape(facts: Facts) -> Candidate:
    warning = f"{_NO_METADATA}: class scores; for an embedding or other numbers set task = tensor"
    return Candidate("classifier", "classify", (_NO_METADATA,), () if facts.nc is not None else (warning,))


def _ready_objects(facts: Facts, task: str) -> Iterator[Candidate]:
    """[objects, 6 or more] without a word on its boxes: pixels, or 0..1 where the noise picture's boxes say so."""
    reach = _reach(facts)
    hint = "set family to end2end or rtdetr-ultralytics-end2end if the boxes are wrong"
    if task == "detect" and 0.0 < reach <= _FRACTIONS:
        why = f"a trial picture gave boxes up to {reach:.2f}: fractions of the picture, cxcywh"
        yield Candidate("rtdetr-ultralytics-end2end", task, (why,), (f"boxes are taken as 0..1, cxcywh; {hint}",))
    boxes = "cxcywh with angle" if task == "obb" else "xyxy"
    why = f"a trial picture gave boxes up to {reach:.0f}: pixels" if reach else "a trial picture gave no objects"
    yield Candidate("end2end", task, (why,), (f"boxes are taken as pixels, {boxes}; {hint}",))


def _reach(facts: Facts) -> float:
    """How far from 0 the first four columns get for the noise picture: pixels get further than fractions."""
    name, _ = facts.only_of_rank(2) or ("", ())
    return float(np.max(np.abs(facts.arrays[name][:, :4]), initial=0.0)) if name else 0.0


def _channels_first(facts: Facts, rows: int, segments: bool) -> Iterator[Candidate]:
    evidence = (_NO_METADATA,)
    if segments and rows > 4 + (extra_columns(facts, "segment") or 0):
        yield Candidate("yolov8", "segment", evidence, (f"{_NO_METADATA}: YOLOv8 segmentation; set task if it is not",))
    warning = f"{_NO_METADATA}: YOLOv8 detection; set task to keypoints or obb if that is what it does"
    yield Candidate("yolov8", "detect", evidence, (warning,) if facts.nc is None else ())
    if facts.nc is not None:
        yield Candidate("yolov8", "obb", evidence)
        yield Candidate("yolov8", "keypoints", evidence)


def _rows_of_anchors(facts: Facts, segments: bool) -> Iterator[Candidate]:
    family = objectness_family(facts)
    evidence = (_NO_METADATA, "the number of rows is that of its anchors at this size")
    if family == "yolov5":
        if segments:
            yield Candidate("yolov5", "segment", evidence)
        yield Candidate("yolov5", "detect", evidence)
    elif family is not None:
        other = {"yolox": "yolox-decoded", "yolox-decoded": "yolox"}[family]
        warning = f"{_NO_METADATA}: {family}, by the boxes of a trial picture; set family = {other} if they are wrong"
        yield Candidate(family, "detect", evidence, (warning,))
    elif facts.nc is not None:
        yield Candidate("rtdetr-ultralytics", "detect", (_NO_METADATA,))
