"""What a request may ask of a task: the options, their ranges, and how they are read.

The wire carries a MessagePack map. It is laid over the model's own defaults (`ModelSpec.parameters`) and checked field
by field; an option nobody knows is an error, because an option silently ignored is a wrong answer.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import lru_cache
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from parallel_infer.errors import BadInput, ConfigError
from parallel_infer.model_spec import ModelSpec
from parallel_infer.wrong_fields import explained

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
ClassFilter = Annotated[
    tuple[Annotated[int, Meta(ge=0, le=2**31 - 1)] | str, ...], Meta(min_length=1, max_length=10000)
]

_EXPECTED = {"class_filter": "a list of class names and class numbers, at least one"}
_CACHED = 64  # distinct option maps remembered per task; most requests repeat one
_CACHED_SIZE = 1024  # bytes; longer maps are read anew each time, so that the memory stays bounded


class NoOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For tasks that take no options."""


class PictureOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For everything that takes pictures."""

    decode: Literal["exact", "fast"] | None = None  # of a JPEG; None: as the model is configured
    color: Literal["bgr", "rgb"] | None = None  # order of a frame's channels, bgr unless said; pictures know theirs


class DetectOptions(PictureOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For everything that finds objects."""

    confidence: Share = 0.25  # a detection's score is above this
    iou: Share = 0.45  # of two boxes that overlap more than this, the weaker goes
    class_filter: ClassFilter | None = None  # names or ids on the wire; ids once read. None: all classes
    max_detections: Annotated[int, Meta(ge=1, le=100_000)] = 300
    max_candidates: Annotated[int, Meta(ge=1, le=1_000_000)] = 3000  # the best ones go into the suppression
    class_agnostic: bool = False  # boxes of different classes suppress each other


class SegmentOptions(DetectOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For masks. `fast` decodes them at the prototypes' resolution, `accurate` at the row's, `tradeoff` between."""

    mask_decode_mode: Literal["accurate", "tradeoff", "fast"] = "accurate"
    tradeoff_factor: Share = 0.5  # 0 is fast, 1 is accurate
    mask_format: Literal["polygon", "rle"] = "polygon"


class SemanticOptions(PictureOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For class maps: as an array, as COCO run lengths of each class, or as a PNG whose gray is the class."""

    map_format: Literal["array", "rle", "png"] = "array"
    class_filter: ClassFilter | None = None  # classes that are listed; the map itself holds all


class MapOptions(PictureOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For maps of numbers: as an array, or as a PNG of 16 bits; at the picture's size or at the model's own."""

    map_format: Literal["array", "png"] = "array"
    map_size: Literal["picture", "model"] = "picture"


class ClassifyOptions(PictureOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For classification."""

    top: Annotated[int, Meta(ge=1, le=100_000)] = 5  # this many classes at most
    confidence: Share = 0.0  # classes below this are left out


class TextOptions(PictureOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For lines of text."""

    confidence: Share = 0.0  # lines whose mean score is below this are empty


Options = TypeVar("Options", bound=Struct)


class OptionsReader(Generic[Options]):
    """Reads the options of one model. Raises ConfigError where the model's own defaults are out of range."""

    def __init__(self, kind: type[Options], spec: ModelSpec) -> None:
        self._kind = kind
        self._names = spec.names
        self._known = tuple(kind.__struct_fields__)
        self._defaults = {key: value for key, value in spec.parameters.items() if key in self._known}
        try:
            self._plain = self._convert({})
        except msgspec.ValidationError as error:
            text = explained(error, kind, expected=_EXPECTED)
            raise ConfigError(f"parameters of model {spec.name!r}: {text}") from None
        except BadInput as error:
            raise ConfigError(f"parameters of model {spec.name!r}: {error}") from None
        self._remember = lru_cache(_CACHED)(self._decode)

    def read(self, encoded: bytes) -> Options:
        """The options in `encoded`, a MessagePack map, over the defaults. Raises BadInput."""
        if encoded in (b"", b"\x80"):
            return self._plain
        return self._remember(encoded) if len(encoded) <= _CACHED_SIZE else self._decode(encoded)

    def _decode(self, encoded: bytes) -> Options:
        try:
            given = msgspec.msgpack.decode(encoded, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise BadInput("the options are not a MessagePack map with texts as keys") from None
        for key in given:
            if key not in self._known:
                raise BadInput(unknown_option(key, self._known))
        try:
            return self._convert(given)
        except msgspec.ValidationError as error:
            raise BadInput(f"option {explained(error, self._kind, expected=_EXPECTED)}") from None

    def _convert(self, given: dict[str, Any]) -> Options:
        options = msgspec.convert({**self._defaults, **given}, self._kind)
        chosen = getattr(options, "class_filter", None)
        if chosen is None:
            return options
        return msgspec.structs.replace(options, class_filter=tuple(self._class_id(entry) for entry in chosen))

    def _class_id(self, entry: int | str) -> int:
        if isinstance(entry, int):
            if self._names and entry >= len(self._names):
                raise BadInput(f"class_filter: class {entry} is not among 0 to {len(self._names) - 1} of this model")
            return entry
        if entry in self._names:
            return self._names.index(entry)
        if not self._names:
            raise BadInput("class_filter: this model has no class names; give class numbers")
        raise BadInput(f"class_filter: this model has no class {entry[:64]!r}{_nearest(entry, self._names)}")


def unknown_option(key: str, known: Iterable[str]) -> str:
    """What to say about an option that does not exist: the nearest known one, and all of them."""
    known = tuple(known)
    if not known:
        return f"unknown option {key[:64]!r}; this task takes no options"
    return f"unknown option {key[:64]!r}{_nearest(key, known)}; known are {', '.join(known)}"


def _nearest(word: str, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(word[:64], list(known), n=1, cutoff=0.6)
    return f"; did you mean {matches[0]!r}?" if matches else ""
