"""The families by name, the tasks each can do, and how to export each with a batch dimension of any size."""

from __future__ import annotations

from stages.pipeline import TASKS as INSTALLED

TASKS = ("classify", "detect", "segment", "keypoints", "obb", "tensor")

OWN_TASKS = tuple(task for task in INSTALLED if task not in TASKS)
"""Tasks added to the pipeline that no family here decodes: they get the outputs of a picture model as they are."""

OWN = "own"  # the family of such models

_YOLO_TASKS = ("detect", "segment", "keypoints", "obb")

FAMILIES: dict[str, tuple[str, ...]] = {
    "yolov8": _YOLO_TASKS,
    "yolov5": ("detect", "segment"),
    "yolox": ("detect",),
    "yolox-decoded": ("detect",),
    "end2end": _YOLO_TASKS,
    "rtdetr-ultralytics": ("detect",),
    "rtdetr-ultralytics-end2end": ("detect",),
    "rtdetr": ("detect",),
    "rfdetr": ("detect", "segment"),
    "detr": ("detect",),
    "classifier": ("classify",),
    "tensor": ("tensor",),
    **({OWN: OWN_TASKS} if OWN_TASKS else {}),
}

_ULTRALYTICS = "yolo export model=MODEL.pt format=onnx dynamic=True"
_YOLOX = "python tools/export_onnx.py -f EXP.py -c MODEL.pth --dynamic --output-name MODEL.onnx"
_TORCH = (
    'torch.onnx.export(model, example, "MODEL.onnx", input_names=["images"], output_names=["output"], '
    'dynamic_axes={"images": {0: "batch"}, "output": {0: "batch"}})'
)

_EXPORTS = {
    "yolov8": _ULTRALYTICS,
    "end2end": _ULTRALYTICS,
    "rtdetr-ultralytics": _ULTRALYTICS,
    "rtdetr-ultralytics-end2end": _ULTRALYTICS,
    "yolov5": "python export.py --weights MODEL.pt --include onnx --dynamic",
    "yolox": _YOLOX,
    "yolox-decoded": _YOLOX + " --decode_in_inference",
    "rtdetr": "python tools/export_onnx.py -c CONFIG.yml -r MODEL.pth  (dynamic by default)",
    "rfdetr": "model.export(dynamic_batch=True)",
    "detr": "optimum-cli export onnx --model MODEL --task object-detection FOLDER  (dynamic by default)",
}


def export_command(family: str) -> str:
    """The command or call that exports a model of this family with a dynamic batch."""
    return _EXPORTS.get(family, _TORCH)
