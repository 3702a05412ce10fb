"""What is wrong with a field that somebody sent or wrote, in words: its name first, then what it takes.

msgspec says "Expected `int` <= 100 - at `$.priority`", which speaks of its own types and paths.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterable, Mapping

import msgspec
from msgspec import inspect

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "bytes": "bytes",
    "array": "a list",
    "object": "a map",
    "null": "nothing",
    "None": "nothing",
}
_SENTENCES = (
    (r"Object missing required field `(.+?)`", r"the field \1 is missing"),
    (r"Object contains unknown field `(.+?)`", r"unknown field \1"),
    (r"Invalid (?:enum )?value (.+)", r"\1 is not known"),
)


def explained(
    error: msgspec.MsgspecError, *kinds: type[msgspec.Struct], expected: Mapping[str, str] | None = None
) -> str:
    """"priority: expected a whole number from -100 to 100, got a text".

    `kinds` are the structures that may be meant; `expected` has words for fields whose types do not tell enough.
    """  # fmt: skip
    problem, _, place = str(error).partition(" - at `")
    field = re.split(r"[.\[]", place.rstrip("`").removeprefix("$").removeprefix("."))[0]
    words = (expected or {}).get(field) or _type_in_words(field, kinds)
    if not words:
        return f"{field}: {_plain(problem)}" if field else _plain(problem)
    found = re.search(r"got `(\w+)`|Invalid (?:enum )?value (.+)", problem)
    if found is None or place != f"$.{field}`":  # said of an item of it
        return f"{field}: expected {words}"
    return f"{field}: expected {words}, got {found[2] or _KINDS.get(found[1], found[1])}"


def _type_in_words(field: str, kinds: tuple[type[msgspec.Struct], ...]) -> str:
    for kind in kinds:
        if field in kind.__struct_fields__:
            try:
                return _words(_without_none(typing.get_type_hints(kind, include_extras=True)[field]))
            except TypeError:  # no type that people would be told of
                return ""
    return ""


def _words(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.StrType) and kind.max_length is not None:
        return f"a text of {kind.min_length or 0} to {kind.max_length} characters"
    return in_words(kind)


def _without_none(hint: object) -> inspect.Type:
    found = inspect.type_info(hint)
    if isinstance(found, inspect.UnionType):
        types = tuple(one for one in found.types if not isinstance(one, inspect.NoneType))
        return types[0] if len(types) == 1 else inspect.UnionType(types)
    return found


def _plain(problem: str) -> str:
    for pattern, sentence in _SENTENCES:
        if re.fullmatch(pattern, problem):
            return re.sub(pattern, sentence, problem)
    text = re.sub(r"`([^`]*)`", lambda match: " or ".join(_KINDS.get(p, p) for p in match[1].split(" | ")), problem)
    return text[:1].lower() + text[1:]


def in_words(kind: inspect.Type) -> str:
    """A type as a person would say it."""
    match kind:
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType() | inspect.FloatType():
            return _number_in_words(kind)
        case inspect.StrType():
            return "a text"
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(str(value) for value in values)
        case inspect.ListType(item_type=item):
            return f"a list, each of it {in_words(item)}"
        case inspect.DictType(value_type=value):
            return f"a table, each value {in_words(value)}"
        case inspect.UnionType(types=types):
            return " or ".join(in_words(one) for one in types)
        case inspect.StructType():
            return "a table"
    raise TypeError(f"a field of type {kind} has no words")


def nearest(name: str, known: Iterable[str]) -> str:
    """What to add to an error about `name`: "; did you mean 'x'?", or nothing where no known name is like it."""
    close = difflib.get_close_matches(name.lower(), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _number_in_words(kind: inspect.IntType | inspect.FloatType) -> str:
    noun = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
    if kind.ge is not None and kind.le is not None:
        return f"{noun} from {kind.ge:.15g} to {kind.le:.15g}"
    bounds = [("above", kind.gt), ("at least", kind.ge), ("below", kind.lt), ("at most", kind.le)]
    limits = [f"{words} {bound:.15g}" for words, bound in bounds if bound is not None]
    return " ".join([noun, " and ".join(limits)]).strip()
