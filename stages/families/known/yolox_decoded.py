"""YOLOX exported with `--decode_in_inference`: boxes in pixels."""

from __future__ import annotations

from stages.families.family import Family
from stages.families.known import yolox
from stages.families.known.yolov5 import YoloV5

FAMILY = Family(
    name="yolox-decoded",
    readers={"detect": YoloV5},
    fits=yolox.fits,
    claims=lambda facts: yolox.by_rows(facts, "yolox-decoded", "yolox"),
    recipe=yolox.RECIPE,
    needs_nms=True,
    export=yolox.EXPORT + " --decode_in_inference",
)
