"""The work every peer does, as users of ONNX Runtime, OpenCV and Pillow write it: decode, resize, run, postprocess.

Runs in the peers' environments, so it imports nothing of this project. What to do comes as JSON in an environment
variable, because every peer starts its workers in a way of its own. How pictures are prepared is said there too, as our
server found it in the model's file, so that both do the same.
"""

from __future__ import annotations

import json
import math
import os
import threading
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from PIL import Image

VARIABLE = "PEER_SETUP"
CONFIDENCE, IOU, MOST, TOP = 0.25, 0.45, 300, 5

Array = npt.NDArray[Any]
Size = tuple[int, int]  # width, height
Box = tuple[float, float, float, float]  # left, top, right, bottom

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}  # with antialiasing


@dataclass(frozen=True)
class Setup:
    """How a peer is started."""

    model: str  # path
    port: int
    workers: int = 1  # copies of the model
    threads: int = 0  # of ONNX Runtime per copy; 0: as ONNX Runtime likes
    batch: int = 8
    delay_ms: float = 2.0  # longest wait for a batch to fill
    timeout_ms: int = 30_000  # after which the server may give a request up
    queue: int = 256  # requests that may wait before the server refuses more
    provider: str = "cpu"  # or "openvino"
    precision: str = "fp32"  # or "bf16"
    spins: bool = True  # idle threads of ONNX Runtime spin: its default
    decoder: str = "cv2"  # or "simplejpeg"
    split: bool = False  # decoding in processes of its own, where the peer has such a thing
    preprocess: dict[str, Any] = field(default_factory=dict)  # of the model's pictures, as our server does it
    second: str = ""  # path of the model that a chain asks about each object
    second_preprocess: dict[str, Any] = field(default_factory=dict)
    callers: int = 1  # processes that lead requests through a chain

    @classmethod
    def from_environment(cls) -> Setup:
        return cls(**json.loads(os.environ[VARIABLE]))

    def environment(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(asdict(self))}

    def of_second(self) -> Setup:
        """The same for the second model."""
        return replace(self, model=self.second, preprocess=self.second_preprocess)


class Row(NamedTuple):
    """One picture as the model takes it, and the way back: picture = (row - offset) / scale."""

    pixels: Array  # uint8 [h, w, 3] BGR, resized
    scale: tuple[float, float]  # x, y
    offset: tuple[float, float]
    size: Size | None = None  # of the picture; None: boxes are left as they are


class Preparation:
    """From encoded bytes to rows, from rows to a batch."""

    def __init__(self, setup: Setup) -> None:
        cv2.setNumThreads(1)  # the peers' workers are what runs in parallel
        asked = setup.preprocess
        self.width, self.height = asked["width"], asked["height"]
        self._resize, self._crop, self._pad = asked["resize"], asked["crop_fraction"], asked["pad"]
        self._filter = _FILTERS.get(asked["filter"])  # None: linear, of the four nearest pixels
        self._mean, self._std = asked["mean"], asked["std"]
        self._decode = _simplejpeg if setup.decoder == "simplejpeg" else _cv2

    def row(self, payload: bytes) -> Row:
        """Decode and resize. Raises ValueError for what is no picture."""
        return self.resized(self.frame(payload))

    def frame(self, payload: bytes) -> Array:
        """Decode: uint8 [h, w, 3] BGR. Raises ValueError for what is no picture."""
        return self._decode(payload)

    def resized(self, frame: Array) -> Row:
        """What the model takes of a picture."""
        height, width = frame.shape[:2]
        if self._resize == "letterbox":
            return self._letterboxed(frame)
        box = self._centre(width, height) if self._resize == "crop" else (0, 0, width, height)
        left, top, right, bottom = box
        scale = (self.width / (right - left), self.height / (bottom - top))
        pixels = self._resampled(frame, (self.width, self.height), box)
        return Row(pixels, scale, (-left * scale[0], -top * scale[1]), (width, height))

    def _centre(self, width: int, height: int) -> Box:
        """What a centre crop keeps of a picture: whole pixels, or as torchvision's Resize and CenterCrop reckon."""
        short = min(width, height)
        if self._filter is None:
            side = round(short * self._crop)
            x, y = (width - side) // 2, (height - side) // 2
            return x, y, x + side, y + side
        resized = math.floor(self.width / self._crop + 1e-6)
        sizes = [(side, resized * side // short) for side in (width, height)]
        left, top = (round((whole - self.width) / 2) * side / whole for side, whole in sizes)
        wide, high = (self.width * side / whole for side, whole in sizes)
        return left, top, left + wide, top + high

    def _resampled(self, frame: Array, size: Size, box: Box) -> Array:
        if self._filter is not None:
            return np.asarray(Image.fromarray(frame).resize(size, self._filter, box))
        left, top, right, bottom = map(int, box)
        return cv2.resize(frame[top:bottom, left:right], size)

    def _letterboxed(self, frame: Array) -> Row:
        height, width = frame.shape[:2]
        ratio = min(self.width / width, self.height / height)
        inner_width, inner_height = round(width * ratio), round(height * ratio)
        spare_x, spare_y = self.width - inner_width, self.height - inner_height
        left, top = round(spare_x / 2 - 0.1), round(spare_y / 2 - 0.1)
        resized = self._resampled(frame, (inner_width, inner_height), (0, 0, width, height))
        borders = (top, spare_y - top, left, spare_x - left)
        pixels = cv2.copyMakeBorder(resized, *borders, cv2.BORDER_CONSTANT, value=(self._pad,) * 3)
        return Row(pixels, (inner_width / width, inner_height / height), (left, top), (width, height))

    def batch(self, rows: list[Row]) -> Array:
        """float32 [n, 3, h, w] RGB, normalised."""
        scale = [1 / value for value in self._std]
        if len(set(scale)) == 1:
            pictures = [row.pixels for row in rows]
            return cv2.dnn.blobFromImages(pictures, scale[0], mean=self._mean, swapRB=True)
        batch: Array = cv2.dnn.blobFromImages([row.pixels for row in rows], swapRB=True)
        batch -= np.array(self._mean, np.float32).reshape(1, 3, 1, 1)
        batch *= np.array(scale, np.float32).reshape(1, 3, 1, 1)
        return batch


class Work:
    """A model and everything around it. Used by one thread, or by several where the peer likes that."""

    def __init__(self, setup: Setup) -> None:
        self.preparation = Preparation(setup)
        self._session = _session(setup)  # that of ONNX Runtime, or what stands in for it
        self._input = self._session.get_inputs()[0].name
        self._task = self._session.get_modelmeta().custom_metadata_map["task"]
        for size in sorted({1, setup.batch}):
            blank = np.zeros((size, 3, self.preparation.height, self.preparation.width), np.float32)
            self._session.run(None, {self._input: blank})

    def answers(self, payloads: list[bytes]) -> list[dict[str, Any]]:
        """Answers for encoded pictures."""
        return self.answers_to_rows([self.preparation.row(payload) for payload in payloads])

    def answers_to_rows(self, rows: list[Row]) -> list[dict[str, Any]]:
        """Answers for decoded pictures."""
        return self.read(self.run(self.preparation.batch(rows)), rows)

    def run(self, batch: Array) -> Array:
        """The model's output."""
        output: Array = self._session.run(None, {self._input: batch})[0]
        return output

    def read(self, outputs: Array, rows: list[Row]) -> list[dict[str, Any]]:
        """What the outputs say."""
        if self._task == "classify":
            return [_top(scores) for scores in outputs]
        return [_objects(predictions, row) for predictions, row in zip(outputs, rows, strict=True)]


def _cv2(payload: bytes) -> Array:
    frame = cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_COLOR)
    if frame is None:
        raise ValueError("not a picture")
    return frame


def _simplejpeg(payload: bytes) -> Array:
    import simplejpeg  # only where it is asked for: users of the peers rarely know it

    frame: Array = simplejpeg.decode_jpeg(payload, "BGR")
    return frame


def _session(setup: Setup) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = setup.threads
    if not setup.spins:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if setup.provider == "cpu":
        return ort.InferenceSession(setup.model, options, providers=["CPUExecutionProvider"])
    if setup.provider != "openvino":
        raise ValueError(f"unknown provider {setup.provider}")
    if not _add_openvino(options, setup):
        return _OpenVinoSession(setup)
    return ort.InferenceSession(setup.model, options)


def _openvino_hints(setup: Setup) -> dict[str, str]:
    """Options of OpenVINO, exactly as our server sets them."""
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if setup.precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": str(setup.threads or len(os.sched_getaffinity(0))),
        "NUM_STREAMS": "1",
        "ENABLE_CPU_PINNING": "NO",
    }


class _OpenVinoSession:
    """OpenVINO's own runtime where its plugin takes no processor of this maker, compiled by size as our server does."""

    def __init__(self, setup: Setup) -> None:
        import openvino  # without its telemetry, which is not installed

        plain = ort.SessionOptions()
        plain.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        read = ort.InferenceSession(setup.model, plain, providers=["CPUExecutionProvider"])
        self._inputs, self._meta = read.get_inputs(), read.get_modelmeta()
        core = openvino.Core()
        graph, hints = core.read_model(setup.model), _openvino_hints(setup)
        self._requests = {0: core.compile_model(graph, "CPU", hints).create_infer_request()}
        for size in {1, setup.batch}:
            sized = graph.clone()
            sized.reshape({0: [size, *self._inputs[0].shape[1:]]})
            self._requests[size] = core.compile_model(sized, "CPU", hints).create_infer_request()
        self._lock = threading.Lock()  # a request runs once at a time

    def get_inputs(self) -> Any:
        return self._inputs

    def get_modelmeta(self) -> Any:
        return self._meta

    def run(self, _names: None, inputs: dict[str, Array]) -> list[Array]:
        (batch,) = inputs.values()
        with self._lock:
            request = self._requests.get(len(batch), self._requests[0])
            request.infer([batch], share_inputs=True)
            return [np.array(tensor.data) for tensor in request.output_tensors]


def _add_openvino(options: ort.SessionOptions, setup: Setup) -> bool:
    """The plugin, where it offers this processor."""
    import onnxruntime_ep_openvino as plugin  # it is there on x86-64 only

    name = "OpenVINOExecutionProvider"
    ort.register_execution_provider_library(name, plugin.get_library_path())
    devices = [device for device in ort.get_ep_devices() if device.ep_name == name]
    devices = [device for device in devices if device.ep_metadata.get("ov_device") == "CPU"]
    if not devices:
        return False
    options.intra_op_num_threads = 1
    options.add_provider_for_devices(devices[:1], {"load_config": json.dumps({"CPU": _openvino_hints(setup)})})
    return True


def in_picture(boxes: Array, row: Row) -> Array:
    """Boxes of a row as boxes of the picture, which end where it does."""
    boxes = (boxes - np.array(row.offset * 2, np.float32)) / np.array(row.scale * 2, np.float32)
    return boxes if row.size is None else np.clip(boxes, 0, np.array(row.size * 2, np.float32))


def _top(scores: Array) -> dict[str, Any]:
    best = np.argpartition(scores, -TOP)[-TOP:]
    best = best[np.argsort(-scores[best])]
    return {"classes": best.tolist(), "scores": scores[best].tolist()}


def _objects(predictions: Array, row: Row) -> dict[str, Any]:
    """Boxes of `predictions` [4 + classes, anchors], suppressed within each class."""
    best = predictions[4:].max(axis=0)
    chosen = np.flatnonzero(best > CONFIDENCE)
    if not len(chosen):
        return {"boxes": [], "scores": [], "classes": []}
    boxes, scores = predictions[:4, chosen].T.copy(), best[chosen]
    classes = predictions[4:, chosen].argmax(axis=0)
    boxes[:, :2] -= boxes[:, 2:] / 2
    suppress: Any = cv2.dnn.NMSBoxesBatched  # its stubs ask for lists, it takes arrays too
    kept = np.asarray(suppress(boxes, scores, classes.astype(np.int32), CONFIDENCE, IOU))
    kept = kept[np.argsort(-scores[kept], kind="stable")][:MOST]
    boxes, scores, classes = boxes[kept], scores[kept], classes[kept]
    boxes[:, 2:] += boxes[:, :2]
    boxes = in_picture(boxes, row)
    return {"boxes": boxes.tolist(), "scores": scores.tolist(), "classes": classes.tolist()}
