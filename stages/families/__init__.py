"""Families: how the outputs of a kind of model are laid out, and how its pictures are prepared.

To add one, write a file in `stages/families/known` and name it here. Of claims of one strength the first in this
order wins.
"""

from __future__ import annotations

from parallel_infer.errors import ModelRejected
from parallel_infer.model_spec import ModelSpec
from stages.candidates import Layout
from stages.families.family import Family
from stages.families.known import (
    boxes_scores,
    classifier,
    ctc,
    dense_map,
    detr,
    efficient_nms,
    embedding,
    end2end,
    mmdeploy,
    nanodet,
    numbered,
    own,
    paddle_detection,
    parseq,
    picodet,
    rfdetr,
    rtdetr,
    rtdetr_hf,
    rtdetr_ultralytics,
    rtdetr_ultralytics_end2end,
    scrfd,
    semantic,
    tensor,
    tensorflow_detection,
    torchvision,
    ultraface,
    yolov5,
    yolov5_face,
    yolov7_pose,
    yolov8,
    yolox,
    yolox_decoded,
    yunet,
)

__all__ = ["FAMILIES", "Family", "export_command", "layout_for"]

KNOWN = (
    own,
    rtdetr,
    paddle_detection,
    tensorflow_detection,
    parseq,
    ctc,
    rfdetr,
    mmdeploy,
    rtdetr_hf,
    detr,
    efficient_nms,
    torchvision,
    ultraface,
    scrfd,
    picodet,
    yunet,
    semantic,
    dense_map,
    embedding,
    rtdetr_ultralytics,
    rtdetr_ultralytics_end2end,
    end2end,
    numbered,
    yolov8,
    nanodet,
    yolov5_face,
    yolov7_pose,
    yolov5,
    yolox,
    yolox_decoded,
    boxes_scores,
    classifier,
    tensor,
)

FAMILIES: dict[str, Family] = {module.FAMILY.name: module.FAMILY for module in KNOWN if module.FAMILY.readers}


def export_command(family: str) -> str:
    """The command or call that exports a model of this family with a dynamic batch."""
    return FAMILIES[family].export


def layout_for(spec: ModelSpec, extra: int = 0) -> Layout:
    """What reads the outputs of this model, with `extra` numbers per object.

    Raises ModelRejected where its family is unknown or does not do its task.
    """
    family = FAMILIES.get(spec.family)
    reader = family.readers.get(spec.task) if family is not None else None
    if reader is None:
        known = sorted(name for name, family in FAMILIES.items() if family.readers.get(spec.task))
        raise ModelRejected(
            f"model {spec.name!r}: family {spec.family!r} is unknown for the task {spec.task}; "
            f"known are {', '.join(known)}"
        )
    return reader(spec, extra)
