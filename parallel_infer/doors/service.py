"""Inference of the Open Inference Protocol, whatever carries it: tensors in, jobs through the gateway, tensors out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from parallel_infer.answers.answer import Answer
from parallel_infer.client.requests import encode_options
from parallel_infer.doors.answers import Output, picture_outputs
from parallel_infer.doors.file_models import FileModels
from parallel_infer.doors.gateway_link import GatewayLink, Work, option_of
from parallel_infer.doors.model_view import ModelView, Port
from parallel_infer.doors.tensors import BYTES, Array, check_is_sent
from parallel_infer.errors import BadInput, InferError, UnknownModel
from parallel_infer.model_spec import PICTURE
from parallel_infer.protocol import MAX_TIMEOUT, Tensor
from parallel_infer.wrong_fields import nearest

_MOST_ROWS = 1024  # pictures or rows of one request
_SEQUENCES = ("sequence_id", "sequence_start", "sequence_end")
_TRITONS = "triton_"  # begins the parameters that Triton keeps for its own clients, perf_analyzer among them
_OWN = ("priority", "timeout", "binary_data_output", "classification")
_LEAST_PRIORITY = 100


class NamedTensor(msgspec.Struct, frozen=True):
    """An input or an output: numbers as an array, BYTES as a list of its elements in C order."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Array | list[Any]


class Wanted(msgspec.Struct, frozen=True):
    """An output that a request names."""

    name: str
    classification: int = 0  # the best n classes instead of the numbers; 0: the numbers


def wanted(name: str, parameters: Mapping[str, Any]) -> Wanted:
    """An output by its name and its parameters in the protocol. Raises BadInput for one that cannot be."""
    check_is_sent(parameters, f"output {name!r}")
    count = parameters.get("classification", 0)
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= 100_000:
        raise BadInput(f"output {name!r}: classification is {count!r}; a number of classes is needed")
    return Wanted(name, count)


class InferRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request, checked as far as it can be without knowing the model."""

    model: str
    version: str = ""
    identity: str = ""
    parameters: Mapping[str, Any] = {}
    inputs: tuple[NamedTensor, ...]
    outputs: tuple[Wanted, ...] = ()  # none: all
    client: str = ""


class InferResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What comes back: `outputs` in the order in which they were asked for."""

    model: str
    version: str
    identity: str
    outputs: tuple[NamedTensor, ...]


class InferenceService:
    """Answers requests with the gateway's help."""

    def __init__(self, link: GatewayLink) -> None:
        self._link = link
        self._files = FileModels(link)

    async def view(self, name: str, version: str = "") -> tuple[ModelView, bool]:
        """The model and whether its pictures are meant. Raises UnknownModel, also for another version."""
        view, picture = await self._link.find(name)
        if version and version != str(view.version):
            raise UnknownModel(f"model {name!r} has no version {version!r}; served is version {view.version}")
        return view, picture

    async def load(self, name: str, parameters: Mapping[str, Any]) -> None:
        """Load a configured model anew, or the chain whose steps `parameters` has; returns when it is served.

        Raises BadInput and UnknownModel.
        """
        for key in parameters:
            if key == "config" or key.startswith("file:"):
                raise BadInput(f"parameter {key!r} is not taken: models are files of the server's machine")
            if key != "chain":
                raise BadInput(f"unknown parameter {key!r}{nearest(key, ['chain'])}; known is chain")
        steps = parameters.get("chain")
        if steps is None:
            await self._link.reload(name.removesuffix(PICTURE))
        elif isinstance(steps, str):
            await self._link.load_chain(name, steps)
        else:
            raise BadInput("parameter 'chain' is a text, such as detector > reader")

    async def unload(self, name: str) -> None:
        """Stop serving a model or a chain, called by either of its names; returns when its last job is answered.

        Raises UnknownModel.
        """
        described = await self._link.models(fresh=True)  # without chains whose models are away
        await self._link.unload(name if name in described else name.removesuffix(PICTURE))
        await self._link.models(fresh=True)

    async def infer(self, request: InferRequest) -> InferResponse:
        """Raises InferError where the request is wrong or one of its jobs failed."""
        view, picture = await self.view(request.model, request.version)
        inputs, outputs, _ = view.served(picture)
        _check_names(request.inputs, inputs)
        wanted = _wanted(request.outputs, outputs)
        made = _made(wanted, outputs)
        found = await (self._pictures(view, request, made) if picture else self._tensors(view, request))
        given = tuple(
            _classified(port, found, asked.classification, view, picture)
            if asked.classification
            else _plain(port, found)
            for port, asked in wanted
        )
        return InferResponse(model=request.model, version=str(view.version), identity=request.identity, outputs=given)

    async def _pictures(self, view: ModelView, request: InferRequest, ports: Sequence[Port]) -> Mapping[str, Output]:
        pictures = request.inputs[0]
        if pictures.datatype != BYTES:
            raise BadInput(f"input 'image' takes encoded pictures, datatype BYTES; {pictures.datatype} came")
        if not pictures.data:
            raise BadInput("input 'image' holds no picture")
        if len(pictures.data) > _MOST_ROWS:
            raise BadInput(f"input 'image' holds {len(pictures.data)} pictures; at most {_MOST_ROWS} go in a request")
        work = _work(view.name, request, encode_options(_options(request.parameters)))
        several = len(pictures.data) > 1
        jobs = [self.picture(work, index if several else None, data) for index, data in enumerate(pictures.data)]
        return picture_outputs(ports, await self._link.together(jobs))

    async def picture(self, work: Work, index: int | None, data: Any) -> Answer:
        """The answer about one picture; where it is one of several, an error names it by `index`."""
        try:
            return await self._link.picture(work.of(index or 0), data)
        except InferError as error:
            if index is None:
                raise
            raise type(error)(f"picture {index}: {error}") from None

    async def _tensors(self, view: ModelView, request: InferRequest) -> Mapping[str, Output]:
        """Rows of a batch become jobs of their own, so that they share batches with everybody's.

        Parameters that are not the protocol's have no meaning for a file's own tensors and are ignored, as Triton does.
        """
        tensors = {tensor.name: tensor for tensor in request.inputs}
        for port in view.inputs:
            _check_tensor(tensors[port.name], port)
        if not self._files.served(view):
            await self._files.load(view)
        work = _work(view.file_model, request, msgspec.Raw(b"\x80"))
        if not view.splits:
            answer = await self._row(work, view, tensors, None)
            return {port.name: _with_batch(answer.tensors[port.name], port) for port in view.outputs}
        rows = tensors[view.inputs[0].name].shape[0]
        if any(tensor.shape[0] != rows for tensor in tensors.values()):
            found = ", ".join(f"{name}: {tensor.shape[0]}" for name, tensor in tensors.items())
            raise BadInput(f"inputs differ in their first dimension, the batch ({found})")
        if not 1 <= rows <= _MOST_ROWS:
            raise BadInput(f"the batch has {rows} rows; 1 to {_MOST_ROWS} go in a request")
        if rows == 1:
            answer = await self._row(work, view, tensors, 0)
            return {name: array[np.newaxis] for name, array in answer.tensors.items()}
        answers = await self._link.together([self._row(work, view, tensors, row) for row in range(rows)])
        return {name: _stacked(name, [answer.tensors[name] for answer in answers]) for name in answers[0].tensors}

    async def _row(self, work: Work, view: ModelView, tensors: Mapping[str, NamedTensor], row: int | None) -> Answer:
        """The answer to one row, or (None) to a request that is one job as a whole."""
        described, parts = [], []
        for port in view.inputs:
            array = tensors[port.name].data
            if not isinstance(array, np.ndarray):
                raise BadInput(f"input {port.name!r} takes numbers")
            one = array[row] if row is not None else _without_batch(array, port)
            described.append(Tensor(port.name, port.dtype, one.shape))
            parts.append(np.ascontiguousarray(one).reshape(-1).view(np.uint8).data if one.size else b"")
        return await self._link.job(work.of(row or 0), "tensors", tuple(described), parts)


def _stacked(name: str, rows: Sequence[Array]) -> Array:
    """The rows of an output. Raises BadInput where their shapes depend on what was asked, and differ."""
    shapes = sorted({row.shape for row in rows})
    if len(shapes) > 1:
        raise BadInput(
            f"the rows of output {name!r} differ in their shapes, {list(shapes[0])} and {list(shapes[-1])} among them, "
            "so they make no tensor together; send each row in a request of its own"
        )
    return np.stack(rows)


def _without_batch(array: Array, port: Port) -> Array:
    """The tensor of one job: without the batch dimension, where the file has one for it."""
    if port.axis is None:
        return array
    if array.shape[port.axis] != 1:
        raise BadInput(
            f"input {port.name!r} has {array.shape[port.axis]} jobs along dimension {port.axis}; this model takes one "
            "at a time, since its batch does not come first everywhere"
        )
    one: Array = np.take(array, 0, port.axis)
    return one


def _with_batch(array: Array, port: Port) -> Array:
    return array if port.axis is None else np.expand_dims(array, port.axis)


def _work(model: str, request: InferRequest, options: msgspec.Raw) -> Work:
    parameters = request.parameters
    timeout = _number(parameters, "timeout")
    priority = _number(parameters, "priority") or 0
    if timeout is not None and not 0 < timeout <= MAX_TIMEOUT * 1e6:
        raise BadInput(f"parameter 'timeout' is {timeout:g} microseconds; above 0 and up to {MAX_TIMEOUT:g} s is taken")
    if priority != int(priority):
        raise BadInput(f"parameter 'priority' is {priority:g}; a whole number is taken, 1 the highest, 0 the default")
    # Here 1 is the highest and 0 the default; on our own wire higher goes first and 0 is the default.
    ours = 0 if not priority else max(-_LEAST_PRIORITY, _LEAST_PRIORITY + 1 - int(priority))
    return Work(
        model=model,
        options=options,
        timeout=timeout / 1e6 if timeout else None,
        priority=ours,
        client=request.client,
    )


def _number(parameters: Mapping[str, Any], name: str) -> float | None:
    value = parameters.get(name)
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise BadInput(f"parameter {name!r} is {str(value)[:60]!r}; a number is needed") from None
    if isinstance(value, bool) or not math.isfinite(number) or number < 0:
        raise BadInput(f"parameter {name!r} is {str(value)[:60]!r}; a number of 0 or more is needed")
    return number


def _options(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The task's options among a request's parameters: numbers and truth values may be texts, lists "a,b"."""
    theirs = (*_OWN, *_SEQUENCES, "headers")
    return {
        name: option_of(name, value)
        for name, value in parameters.items()
        if name not in theirs and not name.startswith(_TRITONS)
    }


def _check_names(given: Sequence[NamedTensor], ports: Sequence[Port]) -> None:
    names = [tensor.name for tensor in given]
    known = [port.name for port in ports]
    if names == known:
        return
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(f"input {twice[0]!r} is there twice")
    for name in names:
        if name not in known:
            raise BadInput(f"the model has no input {name!r}; its inputs are {', '.join(known)}")
    for name in known:
        if name not in names:
            raise BadInput(f"the input {name!r} is missing; the model's inputs are {', '.join(known)}")


def _check_tensor(tensor: NamedTensor, port: Port) -> None:
    if tensor.datatype != port.datatype:
        raise BadInput(f"input {tensor.name!r} has datatype {tensor.datatype}; the model takes {port.datatype}")
    fits = len(tensor.shape) == len(port.shape) and all(
        size in (-1, given) for size, given in zip(port.shape, tensor.shape, strict=True)
    )
    if not fits:
        raise BadInput(
            f"input {tensor.name!r} has the shape {list(tensor.shape)}; "
            f"the model takes {list(port.shape)}, -1 being any size"
        )


def _wanted(asked: Sequence[Wanted], ports: Sequence[Port]) -> list[tuple[Port, Wanted]]:
    known = {port.name: port for port in ports}
    if not asked:
        return [(port, Wanted(port.name)) for port in ports]
    for wanted in asked:
        if wanted.name not in known:
            raise BadInput(f"the model has no output {wanted.name!r}; its outputs are {', '.join(known)}")
    return [(known[wanted.name], wanted) for wanted in asked]


def _plain(port: Port, found: Mapping[str, Output]) -> NamedTensor:
    data = found[port.name]
    if isinstance(data, list):
        return NamedTensor(port.name, BYTES, (len(data), 1), data)
    return NamedTensor(port.name, port.datatype, data.shape, data)


def _made(wanted: Sequence[tuple[Port, Wanted]], outputs: tuple[Port, ...]) -> tuple[Port, ...]:
    """The outputs that an answer is made into: those that go back, and the classes that a classification names."""
    names = {port.name for port, _ in wanted} | {"classes" for _, asked in wanted if asked.classification}
    return tuple(port for port in outputs if port.name in names)


def _classified(port: Port, found: Mapping[str, Output], count: int, view: ModelView, picture: bool) -> NamedTensor:
    """The best `count` elements of each row as texts "score:index:name", as Triton's classification extension.

    Of pictures these are the best classes, or the best objects and their classes. Of a file's own tensors the index is
    the element's place; it has a name only where a row is the scores of all classes.
    """
    data, classes = found[port.name], found.get("classes") if picture else None
    if isinstance(data, list) or (picture and port.name != "scores"):
        raise BadInput(f"output {port.name!r} holds no scores, so it has no classification")
    rows = data.reshape(data.shape[0], -1) if data.ndim else data.reshape(1, 1)
    count = min(count, rows.shape[1])
    # Of whole numbers and truth values the complement turns the order round; the negative wraps around.
    best = np.argsort(-rows if rows.dtype.kind == "f" else ~rows, axis=1, kind="stable")[:, :count]
    named = view.classes if isinstance(classes, np.ndarray) or rows.shape[1] == len(view.classes) else ()
    numbers = np.take_along_axis(classes, best, 1) if isinstance(classes, np.ndarray) else best
    texts = [
        f"{float(score):f}:{number}" + (f":{named[number]}" if 0 <= number < len(named) else "")
        for scores, row in zip(np.take_along_axis(rows, best, 1), numbers.tolist(), strict=True)
        for score, number in zip(scores, row, strict=True)
    ]
    return NamedTensor(port.name, BYTES, (rows.shape[0], count), [text.encode() for text in texts])
