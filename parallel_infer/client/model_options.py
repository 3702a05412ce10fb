"""Options of a model as people write them in Python, as they travel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from parallel_infer.errors import BadInput, ConfigError
from parallel_infer.model_files.class_names import read_names


def model_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` with arrays and paths as plain values, and the names in a file of this machine read.

    What is None is left out. Raises BadInput where the file of the names cannot be read.
    """
    options = {key: _plain(value) for key, value in given.items() if value is not None}
    if "names" in options:
        try:
            options["names"] = read_names(options["names"], Path())
        except ConfigError as error:
            raise BadInput(str(error)) from None
    return options


def _plain(value: Any) -> Any:
    match value:
        case np.ndarray() | np.generic():
            return value.tolist()
        case Path():
            return str(value)
        case Mapping():
            return {_plain(key): _plain(item) for key, item in value.items()}
        case list() | tuple() | range() | set() | frozenset():
            return [_plain(item) for item in value]
    return value
