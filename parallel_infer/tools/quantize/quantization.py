"""A copy of a model in 8-bit integers, calibrated with pictures that go through our own preprocessing.

Static quantization as ONNX Runtime does it, in QDQ format: weights become int8 per channel, activations uint8 with the
ranges that the calibration pictures gave. What no 8 bits can hold stays in float32; `quantizable` says what that is.
Which operators are rounded decides whether a copy is faster: every recipe is tried, with the provider that will serve.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from msgspec import Struct
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from parallel_infer.answers import dense_results
from parallel_infer.errors import BadInput, ConfigError, ModelRejected
from parallel_infer.files.outputs import Inputs, check_target, draft_beside
from parallel_infer.inference.options import SessionConfig
from parallel_infer.inference.session import Session, reason
from parallel_infer.machine.cores import split_cores, usable_cores
from parallel_infer.machine.processor import instruction_sets, processor_fields
from parallel_infer.model_files.content import data_files
from parallel_infer.model_spec import ModelSpec
from parallel_infer.pipeline import Arrays, Geometry, load_pipeline
from parallel_infer.tools.quantize.agreement import Agreement, agreement
from parallel_infer.tools.quantize.quantizable import check_graph, check_scales, kept_in_float, opset_of
from parallel_infer.tools.quantize.recipes import Recipe, Speed, Trial, best, check_worth
from parallel_infer.tools.quantize.views import views, views_each

_PER_CHANNEL_OPSET = 13
_LARGEST = (2 << 30) - (16 << 20)  # bytes; Protobuf ends at 2 GiB
_DOT_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni"})  # without them, sums of products of 8 bits may overflow 16
_ROUNDS = 7  # in which both models are timed in turns
_TIMED_BATCH = 4  # rows of a timed run, where the graph leaves it open


class Calibration(Enum):
    """How the range of an activation is found: its extremes, or the range that loses least (slower)."""

    MINMAX = "MinMax"  # the values are ONNX Runtime's
    ENTROPY = "Entropy"
    PERCENTILE = "Percentile"


class Report(Struct, frozen=True, kw_only=True):
    """What became of a model."""

    pictures: int  # of the calibration
    views: int  # of few pictures, which calibrated and were asked about as well
    skipped: int  # files in the folder that are no pictures we read
    kept_in_float: int  # operators behind the last weights
    size_before: int  # bytes, weights beside the file included
    size_after: int
    recipe: str  # that made the copy
    speed: Speed  # of the copy
    agreement: Agreement  # of the copy
    trials: tuple[Trial, ...]  # of every recipe that made one
    failed: dict[str, str]  # recipes that made none, to the reason


class Feed:
    """Calibration pictures as the rows of a model, float32, and the geometry of each; of few pictures views as well."""

    def __init__(self, spec: ModelSpec, payloads: Sequence[bytes]) -> None:
        """Decodes nothing yet. Raises ModelRejected for a model that pictures cannot calibrate."""
        _check(spec)
        self._batch = spec.batch or 1
        self._rows = load_pipeline().rows(spec)
        self._payloads = payloads
        self._views = views_each(len(payloads))  # of each picture
        self._kept: list[tuple[Arrays, Geometry]] = []  # rows that were made, where they are few
        self.pictures = 0  # that were read
        self.skipped = 0

    def __iter__(self) -> Iterator[tuple[Arrays, Geometry]]:
        """Inputs [batch, ...] of each picture, the same row all through the batch, and its geometry."""
        for rows, geometry in self._kept or self._made():
            yield {name: np.repeat(array[None], self._batch, axis=0) for name, array in rows.items()}, geometry

    def _made(self) -> Iterator[tuple[Arrays, Geometry]]:
        self.pictures = self.skipped = 0
        made: list[tuple[Arrays, Geometry]] = []
        for payload in self._payloads:
            try:
                picture = self._rows(payload)
            except BadInput:
                self.skipped += 1
                continue
            self.pictures += 1
            found = [picture, *map(self._rows, views(payload, self._views))]
            yield from found
            made += found if self._views else ()
        self._kept = made


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime ships no types
    """A Feed as the quantizer wants it."""

    def __init__(self, feed: Feed) -> None:
        self._rows = iter(feed)
        self.count = 0

    def get_next(self) -> Arrays | None:
        following = next(self._rows, None)
        self.count += following is not None
        return None if following is None else following[0]


def quantize(
    path: Path,
    payloads: Sequence[bytes],
    output: Path,
    calibration: Calibration = Calibration.MINMAX,
    config: SessionConfig | None = None,
    recipes: Sequence[Recipe] = tuple(Recipe),
    *,
    anyway: bool = False,
) -> Report:
    """Write a quantized copy of the model at `path` to `output`, whole or not at all, and tell how it compares.

    Every recipe is tried with the provider of `config`; the fastest copy is kept whose answers hold. `payloads` are
    encoded pictures; those that cannot be read are skipped, and of few pictures views are looked at as well. Raises
    ModelRejected where no recipe can quantize the model, or (unless `anyway`) where no copy both is faster and answers
    the same; ConfigError where no picture can be read or `output` cannot be written.
    """
    check_target(output, Inputs([path, *data_files(path)]), "the output")
    place = Path(os.path.realpath(output)).parent
    pipeline = load_pipeline()
    spec = pipeline.describe(path.stem, path, {})
    feed = Feed(spec, payloads)
    size = _size_on_disk(path)
    with tempfile.TemporaryDirectory(prefix=".quantize-", dir=place) as folder:
        prepared = Path(folder) / "prepared.onnx"
        _prepare(path, prepared)
        kept = kept_in_float(onnx.load(prepared).graph)
        subject = _Subject(path, spec, feed, Session(path, as_served(spec, config or SessionConfig())))
        trials: dict[Path, Trial] = {}
        failed: dict[str, str] = {}
        for recipe in recipes:
            draft = Path(folder) / f"{recipe.value}.onnx"
            try:
                _quantize(prepared, draft, feed, calibration, kept, recipe)
                trials[draft] = subject.tried(recipe, draft)
            except ModelRejected as error:
                failed[recipe.value] = str(error)
        if not trials:
            raise ModelRejected("; ".join(dict.fromkeys(failed.values())))
        chosen = best(list(trials.values()))
        if not anyway:
            check_worth(chosen)
        draft = next(draft for draft, trial in trials.items() if trial is chosen)
        report = Report(
            pictures=feed.pictures,
            views=chosen.agreement.pictures - feed.pictures,
            skipped=feed.skipped,
            kept_in_float=len(kept),
            size_before=size,
            size_after=chosen.size,
            recipe=chosen.recipe,
            speed=chosen.speed,
            agreement=chosen.agreement,
            trials=tuple(trials.values()),
            failed=failed,
        )
        try:
            with draft_beside(output) as finished:
                draft.replace(finished)
        except OSError as error:
            raise ConfigError(f"{output} cannot be written: {error.strerror}") from error
    return report


def as_served(spec: ModelSpec, config: SessionConfig) -> SessionConfig:
    """`config` with what a server adds: the threads of one of its instances, and graphs of their own for batch sizes.

    Of a graph that leaves its sizes open, or with more threads, 8 bits gain less than they do where it is served.
    """
    return replace(
        config,
        threads=config.threads or split_cores(usable_cores(), 1, 0).threads,
        batches=() if spec.batch else (_TIMED_BATCH,),
        rows={tensor.name: tensor.shape for tensor in spec.inputs},
    )


def _check(spec: ModelSpec) -> None:
    if not spec.preprocess or spec.task == "tensor":
        raise ModelRejected("the model takes tensors, not pictures, so pictures cannot calibrate it")
    if spec.task in dense_results.TASKS:
        raise ModelRejected(f"how far answers of the task {spec.task} move is not measured, so no copy is made")
    if any(tensor.axis != 0 for tensor in spec.inputs):
        raise ModelRejected("the model's inputs have no batch as their first dimension, so it cannot be calibrated")
    picture = next(tensor for tensor in spec.inputs if tensor.name == spec.preprocess["input"])
    if picture.dtype != "float32":
        raise ModelRejected(f"the model's picture input is {picture.dtype}; only float32 models can be quantized here")


def _size_on_disk(path: Path) -> int:
    """Bytes of the model and of weights beside it. Raises ModelRejected where one ONNX file cannot hold them."""
    check_graph(onnx.load(path, load_external_data=False))
    size: int = path.stat().st_size + sum(file.stat().st_size for file in data_files(path))
    if size > _LARGEST:
        raise ModelRejected("the model with its weights is larger than 2 GiB, more than can be quantized here")
    return size


def _prepare(path: Path, prepared: Path) -> None:
    """Shapes inferred and constants folded, weights stored in float16 among them; every node named."""
    logging.getLogger("onnxruntime.quantization").setLevel(logging.CRITICAL)  # it logs a traceback; we say why
    try:
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        raise ModelRejected(f"the model cannot be prepared for quantizing: {reason(error)}") from error
    model = onnx.load(prepared)
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    onnx.save(model, prepared)


def _quantize(
    prepared: Path, draft: Path, feed: Feed, calibration: Calibration, kept: list[str], recipe: Recipe
) -> None:
    """Write the draft."""
    reader = _Reader(feed)
    arguments: dict[str, Any] = {
        "quant_format": QuantFormat.QDQ,
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QInt8,
        "per_channel": opset_of(onnx.load(prepared, load_external_data=False)) >= _PER_CHANNEL_OPSET,
        "reduce_range": not _has_dot_products(),
        "nodes_to_exclude": kept,
        "calibrate_method": CalibrationMethod[calibration.value],
        **recipe.arguments(),
    }
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            # Ranges that are not finite are computed for tensors that stay in float32 as well; `check_scales` looks
            # at those that count.
            warnings.simplefilter("ignore", RuntimeWarning)
            quantize_static(prepared, draft, reader, **arguments)
    except Exception as error:
        if not reader.count:
            raise ConfigError("none of the calibration pictures can be read") from error
        hint = "" if calibration is Calibration.MINMAX else "; --calibration minmax may do"
        raise ModelRejected(f"ONNX Runtime cannot quantize the model: {reason(error)}{hint}") from error
    check_scales(onnx.load(draft).graph)


def _has_dot_products() -> bool:
    fields = processor_fields()
    if not fields:
        return False
    return not _DOT_PRODUCTS.isdisjoint(instruction_sets(fields)) or "flags" not in fields  # ARM: under other names


def _keep_metadata(path: Path, draft: Path) -> None:
    """What the file says about itself; the quantizer drops it."""
    known = onnx.load(path, load_external_data=False).metadata_props
    model = onnx.load(draft)
    onnx.helper.set_model_props(model, {entry.key: entry.value for entry in known})
    onnx.save(model, draft)


def _check_same(before: ModelSpec, after: ModelSpec) -> None:
    """The copy must be served like the model."""
    for name in ("task", "family", "inputs", "outputs", "batch", "preprocess"):
        if getattr(before, name) != getattr(after, name):
            raise ModelRejected(
                f"the quantized copy would be served differently: its {name} is {getattr(after, name)}, "
                f"the model's is {getattr(before, name)}"
            )


class _Subject:
    """The model that copies are held against."""

    def __init__(self, path: Path, spec: ModelSpec, feed: Feed, session: Session) -> None:
        self._path = path
        self._spec = spec
        self._feed = feed
        self._session = session
        self._answer = load_pipeline().answers(spec)

    def tried(self, recipe: Recipe, draft: Path) -> Trial:
        """How a copy compares. Raises ModelRejected where it would not be served like the model."""
        _keep_metadata(self._path, draft)
        _check_same(self._spec, load_pipeline().describe(self._path.stem, draft, {}))
        session = Session(draft, self._session.config)
        return Trial(
            recipe=recipe.value,
            size=draft.stat().st_size,
            speed=self._speed(session),
            agreement=self._agreement(session),
        )

    def _speed(self, copy: Session) -> Speed:
        """Both in turns, with rows of the first picture: as many as the graph demands, else some of a usual batch."""
        repeats = 1 if self._spec.batch else _TIMED_BATCH
        inputs = {name: np.repeat(rows, repeats, axis=0) for name, rows in next(iter(self._feed))[0].items()}
        sessions = self._session, copy
        figures: tuple[list[float], list[float]] = ([], [])
        for session in sessions:
            session.run(inputs)
        for number in range(_ROUNDS):
            for index in (0, 1) if number % 2 == 0 else (1, 0):
                started = time.perf_counter()
                sessions[index].run(inputs)
                sessions[index].run(inputs)
                figures[index].append((time.perf_counter() - started) / 2 * 1000)
        return Speed(
            provider=self._session.describe(),
            provider_after=copy.describe(),
            threads=self._session.config.thread_count,
            batch=len(next(iter(inputs.values()))),
            before_ms=min(figures[0]),  # what else the machine does makes a run longer only
            after_ms=min(figures[1]),
        )

    def _agreement(self, copy: Session) -> Agreement:
        pairs = [
            (self._answered(self._session, inputs, geometry), self._answered(copy, inputs, geometry))
            for inputs, geometry in self._feed
        ]
        return agreement(self._spec.task, pairs, self._spec.parameters.get("confidence", 0.0))

    def _answered(self, session: Session, inputs: Arrays, geometry: Geometry) -> Any:
        return self._answer({name: array[0] for name, array in session.run(inputs).items()}, geometry)
