"""Every configuration field once: its names, what it accepts and what it means.

Options, environment variables, error texts, `--print-config` and docs/configuration.md are all made from the fields
here, and the fields are made from the structures in `config`, so that none of them can say something else.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import inspect

from parallel_infer.config.schema import ModelConfig, ServerConfig
from parallel_infer.errors import ConfigError
from parallel_infer.wrong_fields import in_words

PREFIX = "PARALLEL_INFER_"
TRUE = ("1", "true", "yes", "on")
FALSE = ("0", "false", "no", "off")
LONGEST_SHOWN = 80  # characters of a wrong value in an error

SERVER_MEANINGS: dict[str, str] = {
    "models": "The models to serve: one table `[models.NAME]` each. None at all: the shipped detector, classifier and "
    "segmenter.",
    "bind": "Addresses to listen on: tcp://IP:PORT, or ipc://PATH for clients on this machine.",
    "provider": "What runs the models. auto: cuda where an NVIDIA GPU answers, else openvino on processors with "
    "bfloat16, else cpu. tensorrt must be asked for.",
    "precision": "Arithmetic of the models. auto: bf16 with openvino on processors that have it, else fp32. fp16 needs "
    "tensorrt.",
    "max_batch_size": "Most pictures that one run of a model takes. A larger batch gives a GPU more throughput and "
    "each picture more latency.",
    "max_queue_delay_ms": "Longest time in milliseconds that a ready picture waits for others to fill its batch. It "
    "only waits while others are known to be coming.",
    "queue_size": "Most jobs of one model that wait for decoding; further ones are refused with RESOURCE_UNAVAILABLE.",
    "instances": "Infer workers per model: copies of the model that run side by side. 0: chosen for the machine.",
    "threads": "Threads of ONNX Runtime per instance. 0: chosen for the machine.",
    "alone_threads": "Threads for a picture that has the machine to itself; more than `threads` takes a second session "
    "per instance. 0: chosen for the machine, and as many as `threads` where those are given.",
    "decode": "exact decodes every picture in full; fast lets JPEG pictures be decoded at reduced size where the "
    "model's input is much smaller.",
    "uint8_rows": "Keep model inputs as uint8 and normalise inside the graph where the graph allows it: a quarter of "
    "the shared memory.",
    "max_output_mb": "Most megabytes of outputs per job, for models whose graph does not say how large they get.",
    "inter_threads": "Operators of one run that ONNX Runtime computes side by side.",
    "streams": "Runs that OpenVINO computes at once, per instance.",
    "optimization": "How far ONNX Runtime rewrites a graph when it loads it.",
    "cpu_arena": "Let ONNX Runtime keep freed memory for its next run.",
    "memory_pattern": "Let ONNX Runtime plan the memory of a run ahead, for runs of the same shape.",
    "device": "Number of the GPU, for cuda and tensorrt.",
    "gpu_mem_limit_mb": "Most megabytes of GPU memory per instance, for cuda and tensorrt. 0: no limit.",
    "arena_strategy": "How GPU memory grows: to the next power of two, or by what is requested.",
    "page_locked": "Page-lock the rows and outputs of models on cuda, so that the GPU reads and writes them by itself.",
    "cuda_graphs": "Record a run of each batch size as a CUDA graph and repeat it, which saves small models time. For "
    "cuda, and for models that run on the GPU throughout.",
    "cache": "Folder for compiled models (openvino) and engines (tensorrt), so that the next start is quick.",
    "model_copies": "Folder for the server's own copies of the model files it serves, which it removes when it stops. "
    "None given: the first of the folder for temporary files, /var/tmp and the run's own folder that has room.",
    "profile": "Folder to write ONNX Runtime's profile of every instance to, when it stops.",
    "decode_workers": "Processes that decode and resize pictures. 0: chosen for the machine.",
    "postprocess_workers": "Processes that turn model outputs into answers. 0: chosen for the machine.",
    "timeout_ms": "Milliseconds a request may take that names no timeout of its own; then it is answered with "
    "DEADLINE_EXCEEDED.",
    "silence_limit_ms": "The dispatcher or the gateway is replaced when it gives no sign of life for this many "
    "milliseconds.",
    "stage_limit_ms": "A worker that works on one job or batch for longer than this many milliseconds is stopped and "
    "replaced.",
    "start_timeout_ms": "Milliseconds the server may take to start, model loading included.",
    "drain_timeout_ms": "Milliseconds that admitted jobs get to finish when the server is told to stop.",
    "shared_memory_mb": "Megabytes of shared memory for the payloads of waiting requests.",
    "lent_memory_mb": "Most megabytes of shared memory lent to clients on this machine, all together. 0: none is lent.",
    "max_payload_mb": "Largest payload of one request, in megabytes, whichever way it comes.",
    "max_pixels": "Pictures of more pixels are refused before they are decoded.",
    "formats": "Picture formats to accept, told by their first bytes; docs/pictures.md says what of each is read.",
    "max_clients": "Most clients connected at the same time; each takes a file descriptor (`ulimit -n`).",
    "keys": "Folder of CURVE keys, made with `parallel-infer keys`. With it, tcp connections are encrypted and only "
    "listed clients may use them.",
    "insecure": "Allow tcp addresses that other machines can reach without keys.",
    "confine": "Keep decode workers from files, processes, the network and most system calls, where the kernel can "
    "(Landlock and seccomp). off is for debuggers and profilers.",
    "restart_budget": "Restarts of one worker within a minute; after one more it is tried again every half minute, and "
    "a model without workers is unavailable meanwhile.",
    "log_format": "text for people, json for log collectors: one object per line.",
    "log_level": "Least important messages to log.",
    "metrics_host": "Address of this machine on which metrics are served. They tell the names of models and sources to "
    "whoever can reach it.",
    "metrics_port": "Port for Prometheus metrics, at http://127.0.0.1:PORT/metrics. 0: none.",
}

MODEL_MEANINGS: dict[str, str] = {
    "path": "The ONNX file; a folder in Triton's layout (NAME/1/model.onnx, the highest version counts); or zoo:NAME "
    "for a shipped model. A relative path starts at the folder of the configuration file.",
    "family": "How the outputs are laid out, where the file does not tell; `parallel-infer inspect` shows what was "
    "recognised.",
    "task": "What the model does: classify, detect, segment, keypoints, obb, semantic, map, embedding, text or tensor.",
    "names": "Class names, by class number: a list, a table {number = name}, text with commas, or a file with one name "
    "a line (.txt, .names, .labels), JSON or the YAML of a data set.",
    "resize": "How a picture becomes the input: stretch, letterbox, letterbox-corner or crop.",
    "imgsz": "Input size in pixels where the graph leaves it open: one number, or [height, width].",
    "conf": "Least confidence of an answer, 0 to 1.",
    "iou": "Overlap above which the weaker of two boxes is dropped, 0 to 1.",
    "mean": "Subtracted from every pixel (0 to 255): one number, or one per channel in the order of `color`.",
    "std": "Divides every pixel after `mean`: one number, or one per channel.",
    "color": "Order of the channels: rgb or bgr.",
    "pad": "Grey value (0 to 255) of the border that letterbox adds.",
    "background": "Number of the class that means nothing is there, for families that have one.",
    "multi_label": "A classifier of which several classes may be true at once.",
    "crop_fraction": "How much of the picture's shorter side `resize = crop` keeps, above 0 and at most 1.",
    "filter": "How pixels are made when a picture is resized: linear (OpenCV's, without antialiasing), bilinear or "
    "bicubic (Pillow's and torchvision's, with antialiasing).",
    "kpt_shape": "Keypoints per object and numbers per keypoint, for example [17, 3].",
    "shapes": "Sizes of inputs that the graph leaves open, without the batch dimension.",
    "max_batch_size": "As above, for this model.",
    "preferred_batch_size": "A batch of this size starts without waiting for more.",
    "max_queue_delay_ms": "As above, for this model.",
    "queue_size": "As above, for this model.",
    "instances": "As above, for this model.",
    "threads": "As above, for this model.",
    "provider": "As above, for this model.",
    "precision": "As above, for this model.",
    "decode": "As above, for this model.",
    "uint8_rows": "As above, for this model.",
    "weight": "Share of the decode and postprocess workers against other models when all are busy.",
    "max_output_mb": "As above, for this model.",
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of `ServerConfig` or `ModelConfig`."""

    name: str
    kind: Any  # its annotated type, as `msgspec.convert` takes it
    default: Any  # `msgspec.NODEFAULT` where it must be given
    meaning: str

    @property
    def option(self) -> str:
        """Its name on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return PREFIX + self.name.upper()

    @property
    def type(self) -> inspect.Type:
        """What it accepts, apart from None."""
        return _without_none(inspect.type_info(self.kind))

    @property
    def expected(self) -> str:
        """What it accepts, in words: "a whole number from 1 to 4096"."""
        return in_words(self.type)

    def convert(self, value: Any, place: str) -> Any:
        """`value` in the field's type. Raises ConfigError that names `place`, the value and what is expected."""
        try:
            converted = msgspec.convert(value, self.kind)
        except msgspec.ValidationError as error:
            raise self.wrong(value, place) from error
        if not _finite(converted):
            raise self.wrong(value, place)
        return converted

    def parse(self, text: str, place: str) -> Any:
        """The value that `text` stands for: a list has commas between its items, or is JSON."""
        try:
            value = _parse(text.strip(), self.type)
        except ValueError as error:
            raise self.wrong(text, place) from error
        try:
            return self.convert(value, place)
        except ConfigError:
            raise self.wrong(text, place) from None

    def wrong(self, value: Any, place: str) -> ConfigError:
        """The error for a value that this field does not accept."""
        return ConfigError(f"{place} is {show(value)}; expected {self.expected}")


def fields_of(structure: type[msgspec.Struct], meanings: Mapping[str, str]) -> dict[str, Field]:
    """The fields of a structure by name, in its order."""
    kinds = typing.get_type_hints(structure, include_extras=True)
    return {
        field.name: Field(field.name, kinds[field.name], _default(field), meanings[field.name])
        for field in msgspec.structs.fields(structure)
    }


def show(value: Any) -> str:
    """A value as TOML would write it, cut where it is long."""
    try:
        text = toml_value(value)
    except TypeError:  # a TOML date, for example
        text = str(value)
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + "..."


def toml_value(value: Any) -> str:
    """A value in TOML."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # the one escape TOML asks beyond
        case list() | tuple():
            return "[" + ", ".join(toml_value(item) for item in value) + "]"
        case dict():
            return "{" + ", ".join(f"{toml_key(str(key))} = {toml_value(item)}" for key, item in value.items()) + "}"
    raise TypeError(f"{type(value).__name__} has no place in TOML")


def toml_key(key: str) -> str:
    """A key in TOML, quoted where it must be."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml_value(key)


def _default(field: msgspec.structs.FieldInfo) -> Any:
    return field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default


def _without_none(kind: inspect.Type) -> inspect.Type:
    if not isinstance(kind, inspect.UnionType):
        return kind
    types = tuple(one for one in kind.types if not isinstance(one, inspect.NoneType))
    return types[0] if len(types) == 1 else inspect.UnionType(types)


def _parse(text: str, kind: inspect.Type) -> Any:
    if text[:1] in ("[", "{") and not isinstance(kind, inspect.StrType):
        return json.loads(text)
    match kind:
        case inspect.BoolType():
            return _parse_switch(text)
        case inspect.IntType():
            return int(text)
        case inspect.FloatType():
            return float(text)
        case inspect.ListType(item_type=item):
            return [_parse(part.strip(), item) for part in text.split(",") if part.strip()]
        case inspect.UnionType(types=types):
            return _parse_first(text, types)
    return text


def _parse_first(text: str, kinds: Iterable[inspect.Type]) -> Any:
    """The value in the first of the types that takes it."""
    for kind in kinds:
        with contextlib.suppress(ValueError):
            return _parse(text, kind)
    raise ValueError(text)


def _parse_switch(text: str) -> bool:
    if text.lower() not in TRUE + FALSE:
        raise ValueError(text)
    return text.lower() in TRUE


def _finite(value: Any) -> bool:
    """Whether no number in it is infinite or not a number; TOML has words for both."""
    match value:
        case float():
            return math.isfinite(value)
        case list():
            return _all_finite(value)
        case dict():
            return _all_finite(value.values())
    return True


def _all_finite(values: Iterable[Any]) -> bool:
    return all(_finite(value) for value in values)


SERVER_FIELDS = fields_of(ServerConfig, SERVER_MEANINGS)
MODEL_FIELDS = fields_of(ModelConfig, MODEL_MEANINGS)
