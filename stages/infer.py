"""The infer stage: from rows to an output slot. One model, one session, one instance."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from parallel_infer.errors import DeviceLost, InferError
from parallel_infer.execution_providers import ON_GPU
from parallel_infer.inference.options import ArenaStrategy, GraphOptimization, SessionConfig
from parallel_infer.inference.session import Binding, Session
from parallel_infer.ipc.messages import FailedRow, ModelPlan
from parallel_infer.ipc.stages import HasArrays
from parallel_infer.model_files.digest import check_unchanged
from parallel_infer.shm.ring import batch_view, gather_into
from stages.batch import power_sizes
from stages.graph import Rewritten, with_uint8_input
from stages.preprocess import Preprocess

Arrays = dict[str, npt.NDArray[Any]]
_WARM_UPS = 2
_MOST_RUNS = 6  # of a size
_SHORT = 0.05  # seconds up to which a run counts as short


class Ran(NamedTuple):
    """What became of a batch."""

    gathered: int  # rows that were copied together
    shapes: dict[str, tuple[int, ...]]  # of outputs whose shape only the run tells
    failed: tuple[FailedRow, ...]


class Begun:
    """A batch that is under way: wait for it, in any thread, then let the thread that began it finish it."""

    __slots__ = ("_finish", "_wait", "error", "outputs")

    def __init__(
        self, wait: Callable[[], Arrays], finish: Callable[[Begun], Ran], error: InferError | None = None
    ) -> None:
        self._wait = wait
        self._finish = finish
        self.outputs: Arrays = {}  # by name, of a run without an error
        self.error = error

    def wait(self) -> None:
        """Sleep until the run is over. Raises nothing: an error is told by `finish`."""
        try:
            self.outputs = self._wait()
        except InferError as error:
            self.error = error

    def finish(self) -> Ran:
        """What became of the batch, after `wait`. Raises DeviceLost."""
        return self._finish(self)


class Infer:
    """Runs one model from its row ring into its output ring; all but `Begun.wait` in one thread."""

    def __init__(self, plan: ModelPlan, rows: HasArrays, outputs: HasArrays) -> None:
        self._plan = plan
        self._rows = rows.arrays
        self._outputs = outputs.arrays
        check_unchanged(plan.spec)
        model, config = model_for(plan), session_config(plan)
        self.session = Session(model, config)
        self._alone = self.session
        alone_threads = plan.session.alone_threads
        if self.on_processor and alone_threads > config.threads:
            alone = replace(config, threads=alone_threads, profile=None, batches=(1,))
            self._alone = Session(model, alone)
        self._input_axes = {tensor.name: tensor.axis for tensor in plan.spec.inputs}
        self._output_axes = {tensor.name: tensor.axis for tensor in plan.spec.outputs}
        self._unknown = [tensor.name for tensor in plan.spec.outputs if -1 in tensor.shape]
        # Where rows are no neighbours, or too few for a fixed batch, they are copied together here.
        self._gathered: list[Arrays] = [
            {
                tensor.name: np.full((plan.max_batch, *tensor.shape), tensor.usual, tensor.dtype)
                for tensor in plan.spec.inputs
            }
            for _ in range(self.session.at_once)
        ]
        self._turn = 0  # the buffer set of the next batch that is begun
        gathered = [array for arrays in self._gathered for array in arrays.values()]
        for session in {self.session, self._alone}:
            session.lock_pages([*self._rows.values(), *self._outputs.values(), *gathered])

    @property
    def provider(self) -> str:
        """Name and precision, as people are told."""
        return self.session.describe()

    @property
    def on_processor(self) -> bool:
        """Whether the cores compute it."""
        return self.session.choice.provider not in ON_GPU

    @property
    def at_once(self) -> int:
        """Batches that `begin` takes before the first of them is finished."""
        return self.session.at_once

    def warm_up(self) -> tuple[dict[int, float], dict[int, float]]:
        """Run batches of one and of the largest size; the least seconds of each, and the least of processor time.

        What else the machine does makes a run longer, never shorter, so short ones are repeated more often. Processor
        time is that of all threads; none is told where another device computes, which is shown every size it is to
        compute instead: the first run of a size may take it seconds. No slot is claimed by anybody yet.
        """
        seconds: dict[int, float] = {}
        costs: dict[int, float] = {}
        largest = self._plan.max_batch
        others = () if self.on_processor else self.session.config.batches
        sizes = [largest] if self._plan.fixed_batch else sorted({1, *others, largest})
        for size in sizes:
            run_once, *others_once = (self._warm_run(size, number) for number in range(self.at_once))
            for run in range(_MOST_RUNS):
                started, used = time.monotonic(), time.process_time()
                run_once()
                costs[size] = min(costs.get(size, math.inf), time.process_time() - used)
                seconds[size] = min(seconds.get(size, math.inf), time.monotonic() - started)
                if run + 1 >= _WARM_UPS and seconds[size] > _SHORT:
                    break
            for other_once in others_once:
                other_once()
        for _ in range(_WARM_UPS):  # never a larger batch: its memory would be kept twice
            self._alone.run(self._fed({name: array[: sizes[0]] for name, array in self._gathered[0].items()}))
        return seconds, costs if self.on_processor else {}

    def _warm_run(self, size: int, buffer_set: int) -> Callable[[], object]:
        """A run of a size as it will be while serving: on another device, with memory of the outputs bound."""
        inputs = self._fed({name: array[:size] for name, array in self._gathered[buffer_set].items()})
        if self.on_processor:
            return partial(self.session.run, inputs)
        outputs = self.session.run(inputs)
        fixed = {name: outputs[name] for name in outputs if name not in self._unknown}
        return self.session.bind(inputs, fixed, buffer_set).run

    def close(self) -> None:
        """Write the profile, where one was asked for, and let go of the rings."""
        if self.session.config.profile is not None:
            self.session.end_profile()
        for session in {self.session, self._alone}:
            session.close()

    def run(self, rows: tuple[int, ...], slot: int, alone: bool = False) -> Ran:
        """Run the model on these rows into this output slot; a row that fails does not fail the others.

        `alone`: one row, and nothing else needs the cores, so that this run may have more of them. Raises DeviceLost.
        """
        begun = self.begin(rows, slot, alone)
        begun.wait()
        return begun.finish()

    def begin(self, rows: tuple[int, ...], slot: int, alone: bool = False) -> Begun:
        """The same, not waited for; up to `at_once` batches may be under way, and are over in the order of this."""
        session = self._alone if alone else self.session
        buffer_set = self._turn % self.at_once
        self._turn += 1
        gathered, inputs = self._inputs(rows, self._gathered[buffer_set])
        finish = partial(self._ended, rows, slot, gathered, buffer_set)
        try:
            return Begun(self._bound(session, inputs, slot, 0, len(rows), buffer_set).begin(), finish)
        except InferError as error:
            return Begun(dict, finish, error)

    def _ended(self, rows: tuple[int, ...], slot: int, gathered: int, buffer_set: int, begun: Begun) -> Ran:
        error = begun.error
        if error is None:
            return Ran(gathered, self._shapes(begun.outputs), ())
        if isinstance(error, DeviceLost):
            raise error
        if len(rows) == 1 or self._plan.fixed_batch or self._unknown:
            return Ran(gathered, {}, tuple(FailedRow(i, error.code, str(error)) for i in range(len(rows))))
        failed = []
        for index, row in enumerate(rows):
            try:
                row_inputs = {name: array[row : row + 1] for name, array in self._rows.items()}
                self._bound(self.session, row_inputs, slot, index, 1, buffer_set).run()
            except DeviceLost:
                raise
            except InferError as error_of_row:
                failed.append(FailedRow(index, error_of_row.code, str(error_of_row)))
        return Ran(gathered, {}, tuple(failed))

    def _inputs(self, rows: tuple[int, ...], gathered: Arrays) -> tuple[int, Arrays]:
        """The batch as views of the ring where rows are neighbours, else copied together; and how many were copied."""
        fixed = self._plan.fixed_batch
        if not fixed or len(rows) == fixed:
            views = {name: batch_view(array, rows) for name, array in self._rows.items()}
            if all(view is not None for view in views.values()):
                return 0, {name: view for name, view in views.items() if view is not None}
        for name, array in self._rows.items():
            gather_into(array, rows, gathered[name])
        size = fixed or len(rows)
        return len(rows), {name: array[:size] for name, array in gathered.items()}

    def _bound(self, session: Session, inputs: Arrays, slot: int, first: int, count: int, buffer_set: int) -> Binding:
        """A run with outputs bound to places `first` and on of the slot."""
        size = self._plan.fixed_batch or count
        outputs = {
            name: array[slot]
            if name in self._unknown
            else _as_graph(array[slot, first : first + size], self._output_axes[name])
            for name, array in self._outputs.items()
        }
        return session.bind(self._fed(inputs), outputs, buffer_set)

    def _shapes(self, outputs: Arrays) -> dict[str, tuple[int, ...]]:
        """Of outputs that could not be bound."""
        return {name: _as_rows(outputs[name].shape, self._output_axes[name]) for name in self._unknown}

    def _fed(self, inputs: Arrays) -> Arrays:
        """The same memory in the graph's own dimensions."""
        return {name: _as_graph(array, self._input_axes[name]) for name, array in inputs.items()}


def _as_graph(rows: npt.NDArray[Any], axis: int | None) -> npt.NDArray[Any]:
    """A batch [n, ...] with the batch at `axis`; a batch of one where that is not in front. A view."""
    if axis == 0:
        return rows
    shape = rows.shape[1:]
    return rows.reshape(shape if axis is None else (*shape[:axis], 1, *shape[axis:]))


def _as_rows(shape: tuple[int, ...], axis: int | None) -> tuple[int, ...]:
    """The shape that the graph gave, with the batch in front."""
    return (1, *shape) if axis is None else (shape[axis], *shape[:axis], *shape[axis + 1 :])


def session_config(plan: ModelPlan) -> SessionConfig:
    """How the session of a model is loaded. Raises ConfigError where the profile's folder cannot be made."""
    options = plan.session
    limit = options.gpu_mem_limit_mb
    profile = options.profile
    if profile is not None:
        Path(profile).mkdir(parents=True, exist_ok=True)
    return SessionConfig(
        provider=options.provider,
        precision=options.precision,
        threads=options.threads,
        inter_threads=options.inter_threads,
        streams=options.streams,
        batches=() if plan.fixed_batch else tuple(power_sizes(plan.max_batch)),
        rows={tensor.name: tensor.shape for tensor in plan.spec.inputs},
        optimization=GraphOptimization(options.optimization),
        cpu_arena=options.cpu_arena,
        memory_pattern=options.memory_pattern,
        device=options.device,
        gpu_mem_limit=limit << 20 if limit else None,
        page_locked=options.page_locked,
        cuda_graphs=options.cuda_graphs,
        cuda_overlap=options.cuda_overlap,
        arena_strategy=_ARENA[options.arena_strategy],
        cache=Path(options.cache) if options.cache else None,
        profile=str(Path(profile) / plan.key.replace("/", "_")) if profile is not None else None,
    )


_ARENA = {
    "power-of-two": ArenaStrategy.NEXT_POWER_OF_TWO,
    "as-requested": ArenaStrategy.SAME_AS_REQUESTED,
}


def model_for(plan: ModelPlan) -> str | bytes:
    """The model as it is loaded: rewritten where its rows are pixels and its graph is to normalise them."""
    spec = plan.spec
    if not spec.preprocess:
        return spec.path
    preprocess = msgspec.convert(spec.preprocess, Preprocess)
    row = next(tensor for tensor in spec.inputs if tensor.name == preprocess.input)
    if row.dtype != "uint8" or row.shape != (preprocess.height, preprocess.width, 3):
        return spec.path
    rewritten = with_uint8_input(spec.path, preprocess)
    return rewritten.model if isinstance(rewritten, Rewritten) else spec.path
