"""What a user writes: `detector(class_filter=car, confidence=0.4) > reader, color`, read into steps.

chain = step [ ">" then ]          what stands right of ">" is asked about each object that the left one finds
then  = item { "," item }          several models for each object
item  = step [ ">" then ] | "(" chain ")"
step  = NAME [ "(" option { "," option } ")" ]
option = KEY "=" VALUE             a list has "|" between its items
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from parallel_infer.errors import ConfigError

JOIN = "+"  # between the names of a fan
_TOKEN = re.compile(r"\s*([>,()=]|[^>,()=]+)")
_DEEPEST = 8  # steps below each other


class Step(Struct, frozen=True):
    """One model, or chain, of a chain: what it is asked with, and what is asked about each of its objects."""

    model: str
    options: dict[str, Any] = {}  # the model's, and those of `plan.CUTS`
    then: tuple[Step, ...] = ()


def read_chain(name: str, text: str) -> Step:
    """The steps of a chain. Raises ConfigError that says where the text is wrong."""
    reader = _Reader(name, text)
    step = reader.chain(1)
    reader.expect("")
    return step


def steps_below(name: str, chains: Mapping[str, str]) -> list[str]:
    """The names of what is asked about each object that `name` finds, by the texts of all chains; none of a model."""
    seen: set[str] = set()
    found: list[str] = []
    while (text := chains.get(name)) and name not in seen:
        seen.add(name)
        step = read_chain(name, text)
        found = [*(below.model for below in step.then), *found]
        name = step.model
    return found


class _Reader:
    """Goes through the tokens once."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._text = text
        self._tokens = [token.strip() for token in _TOKEN.findall(text) if token.strip()] + [""]
        self._at = 0

    def chain(self, depth: int) -> Step:
        if depth > _DEEPEST:
            raise self._wrong(f"it has more than {_DEEPEST} steps below each other")
        step = self._step()
        if self._next != ">":
            return step
        self._at += 1
        then = [self._item(depth + 1)]
        while self._next == ",":
            self._at += 1
            then.append(self._item(depth + 1))
        return Step(step.model, step.options, tuple(then))

    def expect(self, token: str) -> None:
        if self._next != token:
            found = f"{self._next!r}" if self._next else "the end"
            raise self._wrong(f"{found} came where {repr(token) if token else 'the end'} was expected")
        self._at += 1

    @property
    def _next(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _item(self, depth: int) -> Step:
        if self._next != "(":
            return self.chain(depth)
        self._at += 1
        step = self.chain(depth)
        self.expect(")")
        return step

    def _step(self) -> Step:
        model = self._word("the name of a model")
        options: dict[str, Any] = {}
        if self._next == "(":
            self._at += 1
            while self._next != ")":
                key = self._word("an option")
                self.expect("=")
                if key in options:
                    raise self._wrong(f"the option {key!r} of {model!r} is there twice")
                options[key] = _value(self._word(f"a value of {key!r}"))
                if self._next != ")":
                    self.expect(",")
            self._at += 1
        return Step(model, options)

    def _word(self, what: str) -> str:
        word = self._next
        if word in (*">,()=", ""):
            raise self._wrong(f"{what} was expected where {repr(word) if word else 'it ends'}")
        self._at += 1
        return word

    def _wrong(self, why: str) -> ConfigError:
        shown = self._text if len(self._text) <= 120 else f"{self._text[:117]}..."
        return ConfigError(f"chain {self._name!r}: {why}: {shown!r}; for example detector(class_filter=car) > reader")


def _value(text: str) -> Any:
    """A number, true or false, a list of texts and numbers where there is a "|", else the text."""
    if "|" in text:
        return [_value(part.strip()) for part in text.split("|") if part.strip()]
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
