"""The form of all key files: lines `name = value`; comments begin with `#`; a key is 40 characters of Z85. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

KEY_LENGTH = 40
_Z85 = re.compile(rf"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{{}}@%$#]{{{KEY_LENGTH}}}")


def parse_lines(text: str, names: Sequence[str], further: Sequence[str] = ()) -> dict[str, str]:
    """The values by name. Raises ValueError where they are not those of `names`, and perhaps of `further`.

    Values are not checked.
    """
    values = {}
    for line in map(str.strip, text.splitlines()):
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")  # Z85 itself may hold "=": only the first one separates
            values[name.strip()] = value.strip()
    if set(values) - set(further) != set(names):
        raise ValueError(f"needs exactly the lines {', '.join(names)}, each `name = value`")
    return values


def is_key(value: str) -> bool:
    """Whether a value is a key in Z85."""
    return _Z85.fullmatch(value) is not None
