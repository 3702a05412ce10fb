"""What stands in for an input that is a single whole number, as long as no job gives one."""

from __future__ import annotations

USUAL_NUMBERS = (1, 16_000, 8_000)  # where a graph refuses 0: a count, the sampling rates of speech
