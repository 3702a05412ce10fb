"""Objects as boxes and masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from parallel_infer.errors import ModelRejected
from parallel_infer.model_spec import ModelSpec
from stages.candidates import Candidates, Outputs, as_float32, only_output
from stages.families import FAMILIES, layout_for
from stages.geometry import Geometry
from stages.masks import Masks
from stages.masks.outlines import polygons
from stages.masks.prototypes import decode, enlarge_masks, paste_masks
from stages.masks.rle import run_lengths
from stages.nms import find
from stages.tasks import Arrays
from stages.tasks.boxes import boxes_in_frame
from stages.tasks.options import OptionsReader, SegmentOptions


class Segment:
    """Boxes, scores and classes as detection gives them, and a mask for each: polygons or run lengths.

    An object whose mask is empty is left out, as Ultralytics does: `supervision` drops the masks of all objects where
    one has none.
    """

    name: ClassVar[str] = "segment"

    def __init__(self, spec: ModelSpec) -> None:
        self._ready_masks = spec.family in FAMILIES and FAMILIES[spec.family].ready_masks
        self._layout = layout_for(spec, 0 if self._ready_masks else _coefficients(spec))
        self._in_boxes: bool = spec.parameters.get("masks_in_boxes", False)
        self._threshold: float = spec.parameters.get("mask_threshold", 0.0)
        self._row: tuple[int, int] = (spec.preprocess["width"], spec.preprocess["height"])
        self.options = OptionsReader(SegmentOptions, spec).read

    def answer(self, outputs: Mapping[str, npt.NDArray[Any]], geometry: Geometry, options: SegmentOptions) -> Arrays:
        found, boxes = boxes_in_frame(find(self._layout, outputs, options), geometry)
        draw = polygons if options.mask_format == "polygon" else run_lengths
        masks, drawn = draw(self._masks(outputs, found, options), geometry)
        if len(drawn) < len(boxes):
            found, boxes = found.take(drawn), boxes[drawn]
        return {"boxes": boxes, "scores": np.array(found.scores), "classes": found.classes, **masks}

    def _masks(self, outputs: Outputs, found: Candidates, options: SegmentOptions) -> Masks:
        planes = only_output(outputs, 3)
        if self._in_boxes:
            return paste_masks(found, planes, self._row, self._threshold)
        if self._ready_masks:
            return enlarge_masks(found, planes, self._row, options, self._threshold)
        return decode(found, as_float32(planes), self._row, options)


def _coefficients(spec: ModelSpec) -> int:
    """How many mask coefficients each object has: as many as there are prototypes, the 3-D output."""
    known: int | None = spec.parameters.get("coefficients")
    if known is not None:
        return known
    prototypes = [output.shape[0] for output in spec.outputs if len(output.shape) == 3]
    if len(prototypes) != 1 or prototypes[0] < 1:
        raise ModelRejected(f"model {spec.name!r}: expected one output [coefficients, height, width] of prototypes")
    return prototypes[0]
