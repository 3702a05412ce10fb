"""A copy of a model in 8-bit integers, calibrated with pictures that go through our own preprocessing.

Static quantization as ONNX Runtime does it, in QDQ format: weights become int8 per channel, activations uint8 with the
ranges that the calibration pictures gave. What no 8 bits can hold stays in float32; `quantizable` says what that is.
"""

from __future__ import annotations

import contextlib
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
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
from parallel_infer.machine.processor import instruction_sets, processor_fields
from parallel_infer.model_files.content import data_files
from parallel_infer.model_spec import ModelSpec
from parallel_infer.pipeline import Arrays, Geometry, load_pipeline
from parallel_infer.tools.quantize.agreement import Agreement, agreement
from parallel_infer.tools.quantize.quantizable import check_graph, check_scales, kept_in_float, opset_of

_PER_CHANNEL_OPSET = 13
_LARGEST = (2 << 30) - (16 << 20)  # bytes; Protobuf ends at 2 GiB
_DOT_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni"})  # without them, sums of products of 8 bits may overflow 16
_ROUNDS = 5  # in which both models are timed in turns


class Calibration(Enum):
    """How the range of an activation is found: its extremes, or the range that loses least (slower)."""

    MINMAX = "MinMax"  # the values are ONNX Runtime's
    ENTROPY = "Entropy"
    PERCENTILE = "Percentile"


class Speed(Struct, frozen=True, kw_only=True):
    """Milliseconds per run of the graph, medians over rounds in turns, same provider and threads."""

    provider: str
    threads: int
    batch: int
    before_ms: float
    after_ms: float


class Report(Struct, frozen=True, kw_only=True):
    """What became of a model."""

    pictures: int  # of the calibration
    skipped: int  # files in the folder that are no pictures we read
    kept_in_float: int  # operators behind the last weights
    size_before: int  # bytes, weights beside the file included
    size_after: int
    speed: Speed
    agreement: Agreement


class Feed:
    """Calibration pictures as the rows of a model, float32, and the geometry of each."""

    def __init__(self, spec: ModelSpec, payloads: Sequence[bytes]) -> None:
        """Decodes nothing yet. Raises ModelRejected for a model that pictures cannot calibrate."""
        _check(spec)
        self._batch = spec.batch or 1
        self._rows = load_pipeline().rows(spec)
        self._payloads = payloads
        self.skipped = 0

    def __iter__(self) -> Iterator[tuple[Arrays, Geometry]]:
        """Inputs [batch, ...] of each picture, the same row all through the batch, and its geometry."""
        self.skipped = 0
        for payload in self._payloads:
            try:
                rows, geometry = self._rows(payload)
            except BadInput:
                self.skipped += 1
                continue
            yield {name: np.repeat(array[None], self._batch, axis=0) for name, array in rows.items()}, geometry


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
) -> Report:
    """Write a quantized copy of the model at `path` to `output`, whole or not at all, and tell how it compares.

    `payloads` are encoded pictures; those that cannot be read are skipped. Raises ModelRejected where the model cannot
    be quantized, ConfigError where no picture can be read or `output` cannot be written.
    """
    check_target(output, Inputs([path, *data_files(path)]), "the output")
    place = Path(os.path.realpath(output)).parent
    pipeline = load_pipeline()
    spec = pipeline.describe(path.stem, path, {})
    feed = Feed(spec, payloads)
    size = _size_on_disk(path)
    with tempfile.TemporaryDirectory(prefix=".quantize-", dir=place) as folder:
        prepared, draft = Path(folder) / "prepared.onnx", Path(folder) / "draft.onnx"
        _prepare(path, prepared)
        kept = kept_in_float(onnx.load(prepared).graph)
        count = _quantize(prepared, draft, feed, calibration, kept)
        _keep_metadata(path, draft)
        _check_same(spec, pipeline.describe(path.stem, draft, {}))
        sessions = Session(path, config), Session(draft, config)
        report = Report(
            pictures=count,
            skipped=feed.skipped,
            kept_in_float=len(kept),
            size_before=size,
            size_after=draft.stat().st_size,
            speed=_speed(sessions, feed),
            agreement=_agreement(spec, sessions, feed),
        )
        try:
            with draft_beside(output) as finished:
                draft.replace(finished)
        except OSError as error:
            raise ConfigError(f"{output} cannot be written: {error.strerror}") from error
    return report


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


def _quantize(prepared: Path, draft: Path, feed: Feed, calibration: Calibration, kept: list[str]) -> int:
    """Write the draft; how many pictures calibrated it."""
    reader = _Reader(feed)
    arguments: dict[str, Any] = {
        "quant_format": QuantFormat.QDQ,
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QInt8,
        "per_channel": opset_of(onnx.load(prepared, load_external_data=False)) >= _PER_CHANNEL_OPSET,
        "reduce_range": not _has_dot_products(),
        "nodes_to_exclude": kept,
        "calibrate_method": CalibrationMethod[calibration.value],
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
    return int(reader.count)


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


def _speed(sessions: tuple[Session, Session], feed: Feed) -> Speed:
    inputs = next(iter(feed))[0]
    batch = len(next(iter(inputs.values())))
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
        provider=sessions[0].describe(),
        threads=sessions[0].config.thread_count,
        batch=batch,
        before_ms=statistics.median(figures[0]),
        after_ms=statistics.median(figures[1]),
    )


def _agreement(spec: ModelSpec, sessions: tuple[Session, Session], feed: Feed) -> Agreement:
    answer = load_pipeline().answers(spec)
    pairs = []
    for inputs, geometry in feed:
        answers = []
        for session in sessions:
            outputs = {name: array[0] for name, array in session.run(inputs).items()}
            answers.append(answer(outputs, geometry))
        pairs.append((answers[0], answers[1]))
    return agreement(spec.task, pairs)
