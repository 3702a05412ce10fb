"""From what users write to what is done: chains resolved to models, options shared out, mistakes named. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from parallel_infer.chains.steps import JOIN, Step
from parallel_infer.crops import Selection
from parallel_infer.errors import BadInput, InferError, UnknownModel
from parallel_infer.model_spec import ModelSpec
from parallel_infer.wrong_fields import explained, nearest

WITH_BOXES = ("detect", "segment", "keypoints", "obb")
_WHOLE = ("semantic", "map")
_encode = msgspec.msgpack.Encoder().encode


class Cut(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of a step below another: which of the objects it is asked about, and how they are cut out."""

    of: list[str | int] | str | int | None = None  # classes of the model before it; None: all
    min_score: Annotated[float, Meta(ge=0, le=1)] = 0.0
    min_size: Annotated[float, Meta(ge=0, le=100_000)] = 1.0
    max_objects: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    margin: Annotated[float, Meta(ge=0, le=10)] = 0.0
    mask: bool = False
    wide: bool = False


CUTS = Cut.__struct_fields__


class Node(Struct, frozen=True):
    """One model of what a request asks for, with all that its jobs are told."""

    name: str  # as answers call it: the model's, or that of the chain that stands for it
    model: str
    options: bytes  # a MessagePack map
    then: tuple[Node, ...] = ()
    selections: tuple[Selection, ...] = ()  # one for each of `then`

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that takes part."""
        return (self.model, *(model for node in self.then for model in node.models))


Check = Callable[[ModelSpec, bytes], None]
"""Raises BadInput for options that a model's task does not take, by their values."""


class Served(Struct, frozen=True):
    """What there is to ask for."""

    specs: Mapping[str, ModelSpec]
    chains: Mapping[str, Step]
    max_objects: int  # of a step that says nothing
    check: Check | None = None


def resolve(name: str, served: Served) -> Node:
    """What a model's or chain's name stands for. Raises UnknownModel and BadInput that name what is wrong."""
    try:
        return _resolved(Step(name), served, ())
    except (UnknownModel, BadInput) as error:
        if name not in served.chains:
            raise
        raise type(error)(f"chain {name!r}: {error}") from None


def broken_chains(served: Served) -> dict[str, InferError]:
    """The chains that no picture could go through, and why."""
    broken: dict[str, InferError] = {}
    for name in served.chains:
        try:
            resolve(name, served)
        except (UnknownModel, BadInput) as error:
            broken[name] = error
    return broken


def _resolved(step: Step, served: Served, path: tuple[str, ...]) -> Node:
    if step.model in path:
        raise BadInput(f"it goes in a circle: {' > '.join((*path[path.index(step.model) :], step.model))}")
    chain = served.chains.get(step.model)
    if chain is not None:
        whole = Step(chain.model, {**chain.options, **step.options}, (*chain.then, *step.then))
        node = _resolved(whole, served, (*path, step.model))
        return msgspec.structs.replace(node, name=step.model)
    spec = served.specs.get(step.model)
    if spec is None:
        known = ", ".join(sorted(name for name in (*served.specs, *served.chains) if name not in path)) or "none"
        asked = "; steps are asked for by the name that they are served under as a chain" if ">" in step.model else ""
        raise UnknownModel(f"no model {step.model!r} is served; served are: {known}{asked}")
    options = _options(step, spec)
    if options and served.check is not None:
        try:
            served.check(spec, _encode(options))
        except BadInput as error:
            raise BadInput(f"{step.model!r}: {error}") from None
    if step.then and spec.task not in WITH_BOXES:
        raise BadInput(f"model {step.model!r} does {spec.task}: it finds no objects that could be cut out")
    then = tuple(_resolved(_model_part(below), served, path) for below in step.then)
    names = [node.name for node in then]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise BadInput(f"{twice!r} is there twice below {step.model!r}; give one of them a name as a chain of its own")
    selections = tuple(_selection(below, node, spec, served) for below, node in zip(step.then, then, strict=True))
    return Node(step.model, step.model, _encode(options), then, selections)


def _model_part(step: Step) -> Step:
    return Step(step.model, {key: value for key, value in step.options.items() if key not in CUTS}, step.then)


def _options(step: Step, spec: ModelSpec) -> dict[str, Any]:
    """What the model is asked with; its values' ranges are the task's business."""
    options = dict(step.options)
    for key, value in step.options.items():
        if key in CUTS:
            raise BadInput(f"the option {key!r} of {step.model!r} belongs to a step behind another one")
        if not _knows(spec, key):
            known = spec.options or ()
            words = f"; known are {', '.join(known)}" if known else ""
            raise BadInput(f"model {step.model!r} has no option {key!r}{nearest(key, known)}{words}")
        if key == "class_filter":
            options[key] = value if isinstance(value, list) else [value]
            _classes(value, spec, key)
    return options


def _knows(spec: ModelSpec, key: str) -> bool:
    return spec.options is None or key in spec.options


def _selection(step: Step, node: Node, above: ModelSpec, served: Served) -> Selection:
    spec = served.specs[node.model]
    if not spec.preprocess:
        raise BadInput(f"model {node.model!r} takes no pictures, so nothing cut out of one can be handed to it")
    if spec.task in _WHOLE:
        raise BadInput(f"model {node.model!r} does {spec.task}: its answers cover a whole picture, not a part of one")
    options = msgspec.msgpack.decode(node.options)
    if options.get("mask_format", spec.parameters.get("mask_format", "polygon")) != "polygon":
        raise BadInput(f"masks of {node.model!r} are polygons where it is asked about a part of a picture")
    given = {key: value for key, value in step.options.items() if key in CUTS}
    try:
        cut = msgspec.convert(given, Cut)
    except msgspec.ValidationError as error:
        raise BadInput(f"option {explained(error, Cut)}, for {step.model!r}") from None
    if cut.mask and above.task != "segment":
        raise BadInput(f"mask=true of {step.model!r}: model {above.name!r} does {above.task} and finds no masks")
    return Selection(
        served.max_objects if cut.max_objects is None else cut.max_objects,
        () if cut.of is None else _classes(cut.of, above, "of"),
        cut.min_score,
        cut.min_size,
        cut.margin,
        cut.mask,
        cut.wide,
    )


def _classes(given: Any, spec: ModelSpec, key: str) -> tuple[int, ...]:
    """The numbers of classes given by name or number."""
    return tuple(_class(entry, spec, key) for entry in (given if isinstance(given, list) else [given]))


def _class(entry: Any, spec: ModelSpec, key: str) -> int:
    if isinstance(entry, int) and not isinstance(entry, bool):
        if entry < 0 or (spec.names and entry >= len(spec.names)):
            raise BadInput(f"{key}: class {entry} is not among 0 to {len(spec.names) - 1} of model {spec.name!r}")
        return entry
    if entry not in spec.names:
        raise BadInput(f"{key}: model {spec.name!r} has no class {entry!r}{nearest(str(entry), spec.names)}")
    return spec.names.index(entry)


def parts_of(name: str, served: Served) -> tuple[str, ...]:
    """The names of a fan, "a+b"; of anything else, the name itself. Raises BadInput for a name that is there twice."""
    if JOIN not in name or name in served.specs or name in served.chains:
        return (name,)
    names = tuple(part.strip() for part in name.split(JOIN))
    if "" in names or len(set(names)) < len(names):
        raise BadInput(f"{name!r} names a model twice, or none; different models are joined, as in detector+pose")
    return names


def asked(nodes: Sequence[Node], served: Served, options: bytes) -> tuple[Node, ...]:
    """The same with a request's options: each goes to those first models that know it. Raises BadInput if none does."""
    if options in (b"", b"\x80"):
        return tuple(nodes)
    try:
        given = msgspec.msgpack.decode(options, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadInput("the options are not a MessagePack map with texts as keys") from None
    specs = [served.specs[node.model] for node in nodes]
    for key in given:
        if not any(_knows(spec, key) for spec in specs):
            every = sorted({key for spec in specs for key in spec.options or ()})
            raise BadInput(f"unknown option {key[:64]!r}{nearest(key, every)}; known are {', '.join(every)}")
    told = [
        _with(node, {key: value for key, value in given.items() if _knows(spec, key)})
        for node, spec in zip(nodes, specs, strict=True)
    ]
    return tuple(_colored(node, given["color"]) if "color" in given else node for node in told)


def _colored(node: Node, color: Any) -> Node:
    """The order of a frame's channels is no wish but a fact: what is cut out of it has the same."""
    then = tuple(_colored(_with(below, {"color": color}), color) for below in node.then)
    return msgspec.structs.replace(node, then=then)


def _with(node: Node, options: Mapping[str, Any]) -> Node:
    merged = {**msgspec.msgpack.decode(node.options), **options}
    return msgspec.structs.replace(node, options=_encode(merged))
