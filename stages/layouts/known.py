"""Which layout stands for which family name (`ModelSpec.family`)."""

from __future__ import annotations

from collections.abc import Callable

from parallel_infer.errors import ModelRejected
from parallel_infer.models import ModelSpec
from stages.layouts import Layout, queries, yolo

Maker = Callable[[ModelSpec, int], Layout]

UPRIGHT: dict[str, Maker] = {
    "yolov8": yolo.YoloV8,
    "yolov5": yolo.YoloV5,
    "yolox": yolo.YoloX,
    "yolox-decoded": yolo.YoloV5,
    "end2end": queries.EndToEnd,
    "rtdetr-ultralytics": queries.RtDetrUltralytics,
    "rtdetr-ultralytics-end2end": queries.RtDetrUltralyticsEndToEnd,
    "rtdetr": queries.RtDetr,
    "rfdetr": queries.RfDetr,
    "detr": queries.Detr,
}
EXTRA: dict[str, Maker] = {name: UPRIGHT[name] for name in ("yolov8", "yolov5", "end2end")}
MASKS: dict[str, Maker] = {**EXTRA, "rfdetr": queries.RfDetr}
ROTATED: dict[str, Maker] = {"yolov8": yolo.RotatedYoloV8, "end2end": queries.RotatedEndToEnd}


def layout_for(spec: ModelSpec, known: dict[str, Maker], extra: int = 0) -> Layout:
    """The layout of the model's family, with `extra` numbers per object. Raises ModelRejected for another family."""
    try:
        return known[spec.family](spec, extra)
    except KeyError:
        raise ModelRejected(
            f"model {spec.name!r}: family {spec.family!r} is unknown for the task {spec.task}; "
            f"known are {', '.join(known)}"
        ) from None
