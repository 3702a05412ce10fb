"""What followed objects look like, as vectors: who crosses somebody, or comes back, is known by it.

Cost and gates as StrongSORT has them (Du et al. 2023, "StrongSORT: Make DeepSORT Great Again", section 3.2): 0.98 of
the cosine distance and 0.02 of the squared Mahalanobis distance, of pairs near enough in both; vectors are learned as a
moving average with a weight of 0.9 on the past. The gates, a cosine distance of 0.2 and the 0.95 quantile of the chi
square distribution with 4 degrees of freedom, are those of DeepSORT (Wojke et al. 2017, "Simple Online and Realtime
Tracking with a Deep Association Metric", section 2.2).

Different from there: where somebody else nearby is nearly as like, looks decide nothing, and overlap does. Many
embeddings are not made to tell people apart, and with those the cosine alone confuses who overlap told apart.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

LIKENESS = 0.8  # least cosine of two vectors of one object
_PAST = 0.9  # weight of what an object looked like before
_LOOKS, _PLACE = 0.98, 0.02  # weights of the two distances
_FAR = 9.4877  # squared Mahalanobis distance that 95 % of true pairs stay below
_MARGIN = 0.5  # part of the largest distance of looks by which a pair has to be better than others
_LEAST = 1e-6  # of an affinity: more than none
_CROWDED = 0.2  # overlap from which a crop shows somebody else as well


class Looks:
    """Vectors of length 1, float64 [n, d], of known objects; not a number where nobody knows."""

    def __init__(self, likeness: float = LIKENESS) -> None:
        self._likeness = likeness
        self._known = np.zeros((0, 0))

    def add(self, count: int, seen: Floats | None) -> None:
        """Further objects, which look like `seen` [count, d]; None: nobody knows."""
        self._fit(seen)
        new = np.full((count, self._known.shape[1]), np.nan) if seen is None else seen
        self._known = np.concatenate([self._known, new])

    def keep(self, rows: Bools) -> None:
        """Know only these further."""
        self._known = self._known[rows]

    def learn(self, rows: npt.NDArray[np.int64], seen: Floats) -> None:
        """Objects in `rows` were seen again, looking like `seen` [k, d]."""
        before = self._known[rows]
        mean = np.where(np.isnan(before), seen, _PAST * before + (1 - _PAST) * seen)
        length = np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), _LEAST)
        self._known[rows] = np.where(np.isnan(mean), before, mean / length)

    def distances(self, seen: Floats) -> Floats:
        """Cosine distances [n, m] to objects that look like `seen` [m, d]; not a number where one is not known."""
        self._fit(seen)
        return np.asarray(1 - self._known @ seen.T)

    def affinity(self, distances: Floats, places: Floats) -> Floats:
        """How well each pair goes together, by `distances` of looks and of `places` [n, m]; 0: not at all."""
        most = 1 - self._likeness
        near = (distances <= most) & (places <= _FAR)  # not a number is near nothing
        near &= _is_clear(np.where(near, distances, np.inf), _MARGIN * most)
        cost = _LOOKS * distances + _PLACE * places
        return np.where(near, _LOOKS * most + _PLACE * _FAR + _LEAST - cost, 0.0)

    def belongs_to_another(self, distances: Floats) -> Bools:
        """Pairs [n, m] that are unlike while the second is like another known object."""
        alike = distances <= 1 - self._likeness
        return ~alike & ~np.isnan(distances) & alike.any(axis=0)

    def _fit(self, seen: Floats | None) -> None:
        """Vectors of another length are of another model, and say nothing of the old ones."""
        if seen is not None and seen.shape[1] != self._known.shape[1]:
            self._known = np.full((len(self._known), seen.shape[1]), np.nan)


def _is_clear(distances: Floats, margin: float) -> Bools:
    """Pairs [n, m] to which no other of the same row or column comes close."""
    clear = np.ones(distances.shape, np.bool_)
    for axis in (0, 1):
        first, second = np.sort(np.pad(distances, 1, constant_values=np.inf), axis).take([0, 1], axis).swapaxes(0, axis)
        first, second = (np.expand_dims(best[1:-1], axis) for best in (first, second))
        clear &= distances + margin <= np.where(distances == first, second, first)
    return clear


def is_alone(overlap: Floats) -> Bools:
    """By the `overlap` [m, m] of the boxes of a frame: whether a crop shows nobody else, [m]."""
    others = overlap - np.diag(np.diag(overlap))
    return np.asarray(others.max(axis=1, initial=0.0) < _CROWDED)
