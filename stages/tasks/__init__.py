"""Tasks: what the outputs of a model mean. One file, one class, one name per task; `TASKS` in `stages.pipeline`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy.typing as npt

from parallel_infer.model_spec import ModelSpec
from stages.geometry import Geometry

Arrays = dict[str, npt.NDArray[Any]]


class Task(Protocol):
    """Turns one picture's model outputs into its answer. Stateless after construction; used by one thread."""

    name: ClassVar[str]

    def __init__(self, spec: ModelSpec) -> None: ...

    def options(self, encoded: bytes) -> Any:
        """The request's options (a MessagePack map, possibly empty) merged over the model's defaults.

        Raises BadInput for an unknown option (naming the known ones) or a value out of range.
        """

    def answer(self, outputs: Mapping[str, npt.NDArray[Any]], geometry: Geometry, options: Any) -> Arrays:
        """The answer of one picture as named arrays, in pixels of the original picture.

        `outputs` holds this picture's outputs by name, without the batch dimension, as read-only views that are gone
        after the call: copy what is kept. Raises InferError where the outputs are not finite.

        Names of arrays: boxes float32 [n, 4] xyxy; scores float32 [n]; classes int64 [n]; keypoints float32 [n, k, 3]
        (x, y, confidence); angles float32 [n] radians (boxes are then those of the unrotated box about its centre);
        masks as polygons: mask_points float32 [m, 2], mask_rings int32 [r] (points per ring, in order),
        mask_objects int32 [n] (rings per object); masks as RLE: mask_rle uint8 (COCO counts of all objects, joined),
        mask_rle_sizes int32 [n] (bytes per object). Classification: scores float32 [n] and classes int64 [n],
        best first, with `multi_label` uint8 [0 or 1] where several may be true. Tensor task: the outputs themselves.
        """
