"""Running averages of times that one observation cannot move far."""

from __future__ import annotations

_LEARN = 0.2  # weight of a new observation
_ABOVE = 2.0  # times what is known, beyond which an observation says no more than that
_BELOW = 0.25  # part of what is known, below which an observation shows that to be wrong


def learned(known: float, seen: float, weight: float = _LEARN) -> float:
    """A usual time with one more observation taken into account; `known` 0: there was none.

    What disturbs a measurement makes it longer, never shorter. One far above what is known (a pause of the machine, an
    engine built at its first run) counts as twice that, so that only many of them in a row raise it. One far below
    shows that what is known was such a disturbance, and halves it.
    """
    if not known or not seen:
        return known or seen
    if seen < known * _BELOW:
        return known / 2
    return known + weight * (min(seen, known * _ABOVE) - known)
