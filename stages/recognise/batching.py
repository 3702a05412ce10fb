"""Which batch sizes a model really takes. Batch is proven, never believed: two different jobs, alone and together."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, structs

from parallel_infer.errors import ModelRejected
from parallel_infer.model_spec import TensorSpec
from stages.recognise.axes import Declared
from stages.recognise.graph import Graph
from stages.recognise.proof import Array, Arrays, Bench, Constants, Unproven, alike, check_rows
from stages.recognise.trial import NAMELESS, Port, Trial, TrialFailed

Shapes = Mapping[str, tuple[int, ...]]

_UNROLLED = "the export's suppression is unrolled for a batch of"
_PROVEN = 4  # jobs together that are tried where the graph has loops or the like, and may count them
_MOST_PROVEN = 8
_FIRST_ORDER = [0, 1, 1]  # again and again: neighbours on either side are of either kind


class Tried(Struct, frozen=True, kw_only=True):
    """What trial runs showed."""

    batch: int | None  # the size the model demands; None: any
    most: int | None = None  # the largest size that is known to be right, where not all are
    reason: str = ""  # why not any size
    one_by_one: bool = False  # together, jobs would not give what they give alone
    outputs: Arrays  # of the first job
    other: Arrays  # of the second
    specs: tuple[TensorSpec, ...]
    number: int = 0  # that the graph takes for inputs that are a single whole number


class NoBatch(Exception):
    """What looked like a fixed batch is none; the text says how that showed."""


def try_batches(
    graph: Graph, trial: Trial, declared: Declared, shapes: Shapes, constants: Constants, cap: int | None, padded: bool
) -> Tried:
    """Run the model with one job and, where it takes more, with several in both orders, and compare.

    `cap` is the largest batch that the exporter made the graph for, where it says so. `padded` says that outputs
    always have the sizes of the trial. Raises ModelRejected where the model cannot run, NoBatch where a fixed batch of
    several jobs turns out to be none.
    """
    bench = Bench(trial, declared.axes, shapes, constants)
    look = _Look(graph, trial.outputs, declared, padded)
    tried = _try(graph, trial, bench, look, declared, shapes, cap)
    return structs.replace(tried, number=bench.number)


def _try(
    graph: Graph, trial: Trial, bench: Bench, look: _Look, declared: Declared, shapes: Shapes, cap: int | None
) -> Tried:
    if declared.size is not None and declared.size > 1:
        return _fixed(graph, bench, look, declared, shapes)
    alone = _attempt(graph, bench, declared, shapes, 0)
    other = _attempt(graph, bench, declared, shapes, 1)
    if not declared.leads:
        odd = next(name for name, axis in declared.axes.items() if axis != 0)
        reason = f"{odd} has no batch as its first dimension"
        return look.one_by_one(alone, other, declared.because or reason)
    fixed = _fixed_output(trial.outputs)
    if declared.size == 1 or fixed is not None:
        return look.one_at_a_time(alone, other, declared.because or f"{fixed} has a fixed batch of 1")
    if cap == 1:
        return look.one_by_one(alone, other, f"{_UNROLLED} 1, so that a second job would find nothing")
    try:
        most, reason = _prove(graph, bench, (alone, other), cap)
    except _NotTogether as failure:
        return look.one_by_one(alone, other, f"the graph declares a batch of any size, but {failure}")
    return look.tried(alone, other, dict.fromkeys(alone, 0), batch=None, most=most, reason=reason)


def _attempt(graph: Graph, bench: Bench, declared: Declared, shapes: Shapes, *jobs: int) -> Arrays:
    try:
        return bench.settle() if jobs == (0,) else bench.run(*jobs)
    except TrialFailed as failure:
        raise _unfit(graph, declared, shapes, len(jobs), failure) from failure


def _unfit(graph: Graph, declared: Declared, shapes: Shapes, count: int, failure: TrialFailed) -> ModelRejected:
    tried = []
    for name, shape in shapes.items():
        axis = declared.axes[name]
        tried.append(f"{name} {list(shape) if axis is None else [*shape[:axis], count, *shape[axis:]]}")
    return ModelRejected(
        f"{graph.file} failed a trial run with {', '.join(tried)}: {failure}. "
        "If the shape is wrong, give another with imgsz or shapes"
    )


def _fixed_output(outputs: tuple[Port, ...]) -> str | None:
    """The output that fixes the batch to 1 where no input does."""
    return next((port.name for port in outputs if port.dims and port.dims[0] == 1), None)


class _NotTogether(Exception):
    """Jobs that run together do not give what each gives alone."""


def _prove(graph: Graph, bench: Bench, alone: tuple[Arrays, Arrays], cap: int | None) -> tuple[int | None, str]:
    """The largest batch that is known to be right, and why it is no larger.

    Two jobs run together and have to give what each gives alone, then more of them in the other order. Any size is
    right then (None), unless the graph has loops or suppression, which exporters unroll for the batch they had.
    Raises _NotTogether where not even two jobs come out right.
    """
    two = _two_together(bench, alone)
    if graph.value_shaped and all(alike(array[0], array[1]) for array in two.values()):
        raise _NotTogether("its trial pictures show nothing that a run with 2 could get wrong, and it may well do so")
    count = min(cap or _PROVEN, _MOST_PROVEN) if graph.value_shaped or cap is not None else 3
    if count > 2:
        try:
            _together(bench, two, (1, 0, 1, 0, 1, 0, 1, 0)[:count])
        except _NotTogether as failure:
            _together(bench, two, (1, 0))
            return 2, str(failure)
    else:
        _together(bench, two, (1, 0))
    if not graph.value_shaped and cap is None:
        return None, ""
    return count, f"no more than {count} jobs together were tried, and the graph may count them"


def _two_together(bench: Bench, alone: tuple[Arrays, Arrays]) -> Arrays:
    """Run both kinds of job together; each has to give what it gives alone."""
    for arrays in alone:
        for name, array in arrays.items():
            if array.shape[:1] != (1,):
                shape = list(array.shape)
                said = f"output {name!r} of one job has the shape {shape}, so its first dimension is not the batch"
                raise _NotTogether(said)
    outputs = _run(bench, (0, 1))
    for job, arrays in enumerate(alone):
        _check(outputs, arrays, {job: 0}, 2)
    return outputs


def _together(bench: Bench, known: Arrays, jobs: tuple[int, ...]) -> None:
    """Run these jobs together. `known` has the outputs of both kinds of job, in order."""
    _check(_run(bench, jobs), known, dict(enumerate(jobs)), len(jobs))


def _run(bench: Bench, jobs: tuple[int, ...]) -> Arrays:
    try:
        outputs = bench.run(*jobs)
    except TrialFailed as failure:
        raise _failed(len(jobs), str(failure)) from failure
    for name, array in outputs.items():
        if array.ndim == 0 or array.shape[0] != len(jobs):
            shape = list(array.shape)
            raise _failed(len(jobs), f"output {name!r} has the shape {shape}, so its first dimension is not the batch")
    return outputs


def _check(found: Arrays, expected: Arrays, places: Mapping[int, int], count: int) -> None:
    try:
        check_rows(found, expected, places)
    except Unproven as failure:
        raise _failed(count, str(failure)) from failure


def _failed(count: int, why: str) -> _NotTogether:
    return _NotTogether(f"a run with {count} failed ({why})")


def _fixed(graph: Graph, bench: Bench, look: _Look, declared: Declared, shapes: Shapes) -> Tried:
    """A batch of several jobs that the file demands: each row has to follow from its own job alone."""
    size = declared.size or 1
    try:
        bench.check_size(size)
    except TrialFailed as failure:
        raise _unfit(graph, declared, shapes, size, failure) from failure
    orders = [[0, 1], [1, 0], [0, 0]] if size == 2 else [_FIRST_ORDER * size, [1, *[0] * size]]
    runs = [_attempt(graph, bench, declared, shapes, *order[:size]) for order in orders]
    if any(array.ndim == 0 or array.shape[0] != size for run in runs for array in run.values()):
        raise NoBatch(f"not every output has {size} rows")
    try:
        for order, run in zip(orders, runs, strict=True):
            check_rows(run, runs[0], dict(enumerate(order[:size])))
    except Unproven as failure:
        raise NoBatch(str(failure)) from failure
    alone, other = ({name: array[place : place + 1] for name, array in runs[0].items()} for place in (0, 1))
    return look.tried(alone, other, dict.fromkeys(alone, 0), batch=size, reason=declared.because)


class _Look:
    """How outputs of one job look: without the batch, and with what only a run tells left open."""

    def __init__(self, graph: Graph, outputs: tuple[Port, ...], declared: Declared, padded: bool) -> None:
        self._ports = {port.name: port for port in outputs}
        self._declared = declared
        self._variable: frozenset[str] = frozenset() if padded else graph.variable
        self._symbols = {declared.symbol} - {None, NAMELESS}

    def one_at_a_time(self, alone: Arrays, other: Arrays, reason: str) -> Tried:
        """The file says so."""
        return self.tried(alone, other, self._single(alone), batch=1, reason=reason)

    def one_by_one(self, alone: Arrays, other: Arrays, reason: str) -> Tried:
        """Only one job alone is sure to be right."""
        return self.tried(alone, other, self._single(alone), batch=1, reason=reason, one_by_one=True)

    def _single(self, alone: Arrays) -> dict[str, int | None]:
        """Where the batch stands in outputs of a run with one job: by its name, else in front where that is 1."""
        return {name: self._axis(self._ports[name], array.shape) for name, array in alone.items()}

    def _axis(self, port: Port, shape: tuple[int, ...]) -> int | None:
        dims = port.dims
        if len(dims) != len(shape) or not shape:
            return None
        named = [axis for axis, dim in enumerate(dims) if dim in self._symbols and shape[axis] == 1]
        if named:
            return named[0]
        if shape[0] != 1 or not any(axis is not None for axis in self._declared.axes.values()):
            return None
        counts_objects = isinstance(dims[0], str) and dims[0] != NAMELESS and port.name in self._variable
        return None if counts_objects else 0

    def tried(
        self,
        alone: Arrays,
        other: Arrays,
        axes: Mapping[str, int | None],
        *,
        batch: int | None,
        most: int | None = None,
        reason: str = "",
        one_by_one: bool = False,
    ) -> Tried:
        """The outcome, from outputs of one job that still have their batch of one."""
        outputs, others, specs = {}, {}, []
        for name, array in alone.items():
            axis = axes[name]
            outputs[name] = array if axis is None else array.take(0, axis)
            others[name] = other[name] if axis is None else other[name].take(0, axis)
            specs.append(TensorSpec(name, self._ports[name].dtype, self._shape(name, array, other[name], axis), axis))
        return Tried(
            batch=batch,
            most=most,
            reason=reason,
            one_by_one=one_by_one,
            outputs=outputs,
            other=others,
            specs=tuple(specs),
        )

    def _shape(self, name: str, alone: Array, other: Array, axis: int | None) -> tuple[int, ...]:
        """The sizes of one job; -1 where the picture may decide them, or where what the file declares is wrong."""
        dims = self._ports[name].dims
        sizes = [-1] * alone.ndim
        if len(dims) == alone.ndim == other.ndim:
            for place, (dim, size) in enumerate(zip(dims, alone.shape, strict=True)):
                is_open = isinstance(dim, str) and name in self._variable
                sizes[place] = -1 if is_open or other.shape[place] != size else size
        return tuple(sizes if axis is None else [*sizes[:axis], *sizes[axis + 1 :]])
