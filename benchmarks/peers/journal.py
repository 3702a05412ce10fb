"""What a run has measured so far, kept in a file a line at a time: a run that is cut off goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Facts = Mapping[str, Any]  # what figures depend on: machine, versions, conditions; JSON


class Journal:
    """Values by key. The first line of the file holds the facts, each further line a key and its value."""

    def __init__(self, path: Path, facts: Facts, values: Mapping[str, Any] | None = None) -> None:
        """Begin the file anew, with `values` in it."""
        self._path = path
        self._values: dict[str, Any] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(facts) + "\n")
        for key, value in (values or {}).items():
            self.put(key, value)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def get(self, key: str) -> Any:
        """The value, or None."""
        return self._values.get(key)

    def put(self, key: str, value: Any) -> None:
        """Keep a value, in the file before it is needed again."""
        self._values[key] = value
        with self._path.open("a") as file:
            file.write(json.dumps([key, value]) + "\n")


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The facts and the values of a file. A last line that was not written whole is left out. Raises OSError."""
    first, *lines = path.read_text().splitlines()
    values: dict[str, Any] = {}
    for line in lines:
        try:
            key, value = json.loads(line)
        except ValueError:
            break  # cut off while it was written
        values[key] = value
    return json.loads(first), values


def changed(before: Facts, now: Facts, where: str = "") -> list[str]:
    """The names of facts that are not what they were, with both values; those of facts within facts have dots."""
    found = []
    for name in dict.fromkeys((*before, *now)):
        one, other = before.get(name), json.loads(json.dumps(now.get(name)))  # as the file has it: tuples are lists
        if isinstance(one, dict) and isinstance(other, dict):
            found += changed(one, other, f"{where}{name}.")
        elif one != other:
            found.append(f"{where}{name} was {json.dumps(one)}, is {json.dumps(other)}")
    return found
