"""What stands in for an input that is a single whole number, as long as no job gives one."""

from __future__ import annotations

import math

USUAL_NUMBERS = (1, 16_000, 8_000)  # where a graph refuses 0: a count, the sampling rates of speech


def is_number(dtype: str, shape: tuple[int, ...]) -> bool:
    """Whether an input of one job is a single whole number."""
    return dtype.startswith(("int", "uint")) and math.prod(shape) == 1
