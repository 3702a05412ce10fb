"""A line of text: what a recurrent network trained with CTC reads in a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from parallel_infer.errors import InferError, ModelRejected
from parallel_infer.model_spec import ModelSpec
from stages.candidates import Floats, Ints, as_float32, main_output, require_finite, require_scores
from stages.geometry import Geometry
from stages.scores import softmax
from stages.tasks import Arrays
from stages.tasks.options import OptionsReader, TextOptions


class Text:
    """The characters of the line, with a score and a class number each.

    Of a model that reads up to an end mark, the best class at each place before that. Of others, whose steps are parts
    of the line, CTC's best path: of each step the best class, of repeated classes the first, and no blanks (Graves et
    al., "Connectionist Temporal Classification", 2006). A character's score is the highest of the steps that gave it.
    """

    name: ClassVar[str] = "text"

    def __init__(self, spec: ModelSpec) -> None:
        self._characters = spec.names
        if not self._characters:
            raise ModelRejected(
                f"model {spec.name!r}: set names to the characters it reads, in the order of its classes"
            )
        self._output: str | None = spec.parameters.get("output")
        self._blank: int = spec.parameters.get("blank", 0)
        self._until_end: bool = spec.parameters.get("until_end", False)
        self._softmax: bool = spec.parameters.get("softmax", False)
        self.options = OptionsReader(TextOptions, spec).read

    def answer(self, outputs: Mapping[str, npt.NDArray[Any]], geometry: Geometry, options: TextOptions) -> Arrays:
        steps = as_float32(main_output(outputs, self._output, 2))
        require_finite(steps)
        if steps.shape[1] != len(self._characters):
            raise InferError(f"expected {len(self._characters)} classes at each step, the model gave {steps.shape[1]}")
        best = steps.argmax(axis=1)
        scores = (softmax(steps) if self._softmax else steps)[np.arange(len(steps)), best]
        require_scores(scores)
        classes, found = self._up_to_end(best, scores) if self._until_end else self._best_path(best, scores)
        if float(found.mean(dtype=np.float64)) < options.confidence if len(found) else False:
            classes, found = classes[:0], found[:0]
        text = "".join(self._characters[number] for number in classes.tolist())
        return {
            "text": np.frombuffer(text.encode(), np.uint8),
            "scores": np.array(found, np.float32),
            "classes": classes.astype(np.int64),
        }

    def _best_path(self, best: Ints, scores: Floats) -> tuple[Ints, Floats]:
        starts = np.flatnonzero(np.diff(best, prepend=-1))  # of runs of one class
        peaks = np.maximum.reduceat(scores, starts) if len(starts) else scores
        kept = best[starts] != self._blank
        return best[starts][kept], peaks[kept]

    def _up_to_end(self, best: Ints, scores: Floats) -> tuple[Ints, Floats]:
        ends = np.flatnonzero(best == self._blank)
        count = int(ends[0]) if len(ends) else len(best)
        kept = np.array([bool(self._characters[number]) for number in best[:count].tolist()], np.bool_)
        return best[:count][kept], scores[:count][kept]
