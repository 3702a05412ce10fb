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
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import inspect

from parallel_infer.config.fleet_schema import FleetConfig
from parallel_infer.config.schema import OPTION, ModelConfig, ServerConfig
from parallel_infer.errors import ConfigError
from parallel_infer.json_keys import twice
from parallel_infer.wrong_fields import in_words

PREFIX = "PARALLEL_INFER_"
TRUE = ("1", "true", "yes", "on")
FALSE = ("0", "false", "no", "off")
LONGEST_SHOWN = 80  # characters of a wrong value in an error


@dataclass(frozen=True, slots=True)
class Field:
    """One field of `ServerConfig` or `ModelConfig`."""

    name: str
    kind: Any  # its annotated type, as `msgspec.convert` takes it
    default: Any  # `msgspec.NODEFAULT` where it must be given
    meaning: str
    is_option: bool  # of the command line

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
        return _without_none(_bare(inspect.type_info(self.kind)))

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

    def given(self, value: Any, place: str) -> Any:
        """A value of the command line, which is text where a field takes values of several types."""
        several = isinstance(self.type, inspect.UnionType) and isinstance(value, str)
        return self.parse(value, place) if several else self.convert(value, place)

    def parse(self, text: str, place: str) -> Any:
        """The value that `text` stands for: a list has commas, a table NAME=VALUE and semicolons; or JSON."""
        try:
            value = _parse(text.strip(), self.type)
        except Twice as error:
            raise ConfigError(f"{place} is {show(text)}; {error} is there twice; give it once") from None
        except ValueError as error:
            if isinstance(self.type, inspect.DictType) and "=" not in text:
                raise ConfigError(
                    f"{place} is {show(text)}; expected NAME=VALUE, several with ; between them"
                ) from None
            raise self.wrong(text, place) from error
        try:
            return self.convert(value, place)
        except ConfigError:
            raise self.wrong(text, place) from None

    def wrong(self, value: Any, place: str) -> ConfigError:
        """The error for a value that this field does not accept."""
        return ConfigError(f"{place} is {show(value)}; expected {self.expected}")


class Twice(Exception):
    """A name that a table has twice, either of which might be meant."""

    def __init__(self, name: str) -> None:
        super().__init__(repr(name[:64]))


def fields_of(structure: type[msgspec.Struct]) -> dict[str, Field]:
    """The fields of a structure by name, in its order."""
    kinds = typing.get_type_hints(structure, include_extras=True)
    fields = {}
    for field in msgspec.structs.fields(structure):
        kind = kinds[field.name]
        notes = kind.__metadata__
        meaning = next(note.description for note in notes if note.description)
        fields[field.name] = Field(field.name, kind, _default(field), meaning, OPTION in notes)
    return fields


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


def _bare(kind: inspect.Type) -> inspect.Type:
    """A type without what is said about it."""
    return kind.type if isinstance(kind, inspect.Metadata) else kind


def _without_none(kind: inspect.Type) -> inspect.Type:
    if not isinstance(kind, inspect.UnionType):
        return kind
    types = tuple(one for one in kind.types if not isinstance(one, inspect.NoneType))
    return types[0] if len(types) == 1 else inspect.UnionType(types)


def _parse(text: str, kind: inspect.Type) -> Any:
    if text[:1] in ("[", "{") and not isinstance(kind, inspect.StrType):
        found = json.loads(text)
        if name := twice(text.encode()):
            raise Twice(name)
        return found
    match kind:
        case inspect.BoolType():
            return _parse_switch(text)
        case inspect.IntType():
            return int(text)
        case inspect.FloatType():
            return float(text)
        case inspect.ListType(item_type=item):
            return [_parse(part.strip(), item) for part in text.split(",") if part.strip()]
        case inspect.DictType():
            return _table(text)
        case inspect.UnionType(types=types):
            return _parse_first(text, types)
    return text


def _table(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in (_entry(part) for part in text.split(";") if part.strip()):
        if name in found:
            raise Twice(name)
        found[name] = value
    return found


def _entry(text: str) -> tuple[str, str]:
    """NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(text)
    return name.strip(), value.strip()


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


SERVER_FIELDS = fields_of(ServerConfig)
MODEL_FIELDS = fields_of(ModelConfig)
FLEET_FIELDS = fields_of(FleetConfig)
FLEET_PREFIX = PREFIX + "FLEET_"
