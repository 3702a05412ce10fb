"""Arguments that are a number of seconds, checked: a wrong one is a BadInput that names it."""

from __future__ import annotations

import math
import numbers
from typing import Any

from parallel_infer.errors import BadInput
from parallel_infer.protocol import MAX_TIMEOUT


def checked_timeout(timeout: Any, most: float = MAX_TIMEOUT, name: str = "timeout") -> float:
    """A number of seconds as a float. Raises BadInput for anything else."""
    if isinstance(timeout, bool) or not isinstance(timeout, numbers.Real):
        raise BadInput(f"{name}={timeout!r:.50} is no number of seconds; give one up to {most:g}, as in {name}=5.0")
    if not 0 < float(timeout) <= most:
        raise BadInput(f"{name}={timeout!r} is out of range; it may be up to {most:g} seconds")
    return float(timeout)


def checked_patience(timeout: Any) -> float | None:
    """Seconds to wait for something that is under way: 0 only looks, None waits on. Raises BadInput otherwise."""
    if timeout is None or timeout == math.inf:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, numbers.Real) or not float(timeout) >= 0:
        raise BadInput(f"timeout={timeout!r:.50} is no number of seconds from 0 on; None waits until it is done")
    return float(timeout)
