"""What a server is told about one model, with bounds, defaults and meanings; `schema` has what it is told beside."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from parallel_infer.execution_providers import ProviderName

Count = Annotated[int, Meta(ge=1, le=4096)]
Milliseconds = Annotated[float, Meta(ge=0, le=3_600_000)]
Megabytes = Annotated[float, Meta(gt=0, le=4096)]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Device = Annotated[int, Meta(ge=0, le=255)]
Devices = Device | Annotated[list[Device], Meta(min_length=1)] | Literal["auto"]


def says(meaning: str, *, ge: float | None = None, le: float | None = None) -> Meta:
    """What a field means, and its bounds, beside its type: --help, the manual and tests of both read them."""
    return Meta(description=meaning, ge=ge, le=le)


OPTION = Meta(extra={"option": True})
"""Marks a field that is an option of the command line; every other one is set in the file or the environment."""

AS_OF_SERVER = says("As above, for this model.")


class ModelConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[models.NAME]` table. What is None comes from the server's defaults or from the ONNX file."""

    path: Annotated[
        str,
        says(
            "The ONNX file; a folder in Triton's layout (NAME/1/model.onnx, the highest version counts); or "
            "zoo:NAME for a shipped model. A relative path starts at the folder of the configuration file."
        ),
    ]
    # what the file means; see stages.families
    family: Annotated[
        str | None,
        says(
            "How the outputs are laid out, where the file does not tell; `parallel-infer inspect` shows what "
            "was recognised."
        ),
    ] = None
    task: Annotated[
        str | None,
        says(
            "What the model does: classify, detect, segment, keypoints, obb, semantic, map, embedding, text or tensor."
        ),
    ] = None
    names: Annotated[
        list[str] | dict[int | str, str] | str | None,
        says(
            "Class names, by class number: a list, a table {number = name}, text with commas, or a file with "
            "one name a line (.txt, .names, .labels), JSON or the YAML of a data set."
        ),
    ] = None
    resize: Annotated[
        str | None, says("How a picture becomes the input: stretch, letterbox, letterbox-corner or crop.")
    ] = None
    imgsz: Annotated[
        int | list[int] | None,
        says("Input size in pixels where the graph leaves it open: one number, or [height, width]."),
    ] = None
    conf: Annotated[float | None, says("Least confidence of an answer, 0 to 1.")] = None
    iou: Annotated[float | None, says("Overlap above which the weaker of two boxes is dropped, 0 to 1.")] = None
    mean: Annotated[
        float | list[float] | None,
        says("Subtracted from every pixel (0 to 255): one number, or one per channel in the order of `color`."),
    ] = None
    std: Annotated[
        float | list[float] | None, says("Divides every pixel after `mean`: one number, or one per channel.")
    ] = None
    color: Annotated[str | None, says("Order of the channels: rgb or bgr.")] = None
    pad: Annotated[int | None, says("Grey value (0 to 255) of the border that letterbox adds.")] = None
    crop_fraction: Annotated[
        float | None, says("How much of the picture's shorter side `resize = crop` keeps, above 0 and at most 1.")
    ] = None
    filter: Annotated[
        str | None,
        says(
            "How pixels are made when a picture is resized: linear (OpenCV's, without antialiasing), bilinear "
            "or bicubic (Pillow's and torchvision's, with antialiasing)."
        ),
    ] = None
    kpt_shape: Annotated[
        list[int] | None, says("Keypoints per object and numbers per keypoint, for example [17, 3].")
    ] = None
    background: Annotated[
        int | None, says("Number of the class that means nothing is there, for families that have one.")
    ] = None
    multi_label: Annotated[bool | None, says("A classifier of which several classes may be true at once.")] = None
    shapes: Annotated[
        dict[str, list[int]] | None, says("Sizes of inputs that the graph leaves open, without the batch dimension.")
    ] = None
    # how it runs
    max_batch_size: Annotated[Count | None, AS_OF_SERVER] = None
    preferred_batch_size: Annotated[Count | None, says("A batch of this size starts without waiting for more.")] = None
    max_queue_delay_ms: Annotated[Milliseconds | None, AS_OF_SERVER] = None
    queue_size: Annotated[Count | None, AS_OF_SERVER] = None
    instances: Annotated[Annotated[int, Meta(ge=1, le=64)] | None, AS_OF_SERVER] = None
    threads: Annotated[Annotated[int, Meta(ge=1, le=256)] | None, AS_OF_SERVER] = None
    provider: Annotated[ProviderName | None, AS_OF_SERVER] = None
    precision: Annotated[Precision | None, AS_OF_SERVER] = None
    device: Annotated[Devices | None, AS_OF_SERVER] = None
    decode: Annotated[Literal["exact", "fast"] | None, AS_OF_SERVER] = None
    uint8_rows: Annotated[bool | None, AS_OF_SERVER] = None
    weight: Annotated[
        Annotated[float, Meta(gt=0, le=1000)],
        says("Share of the decode and postprocess workers against other models when all are busy."),
    ] = 1.0
    max_output_mb: Annotated[Megabytes | None, AS_OF_SERVER] = None

    def overrides(self) -> dict[str, Any]:
        """The part that `stages.recognise.describe` understands, without what is not set."""
        return {key: value for key in _OVERRIDES if (value := getattr(self, key)) is not None}


_OVERRIDES = (
    *("family", "task", "names", "resize", "imgsz", "conf", "iou", "mean", "std", "color", "pad"),
    *("crop_fraction", "filter", "kpt_shape", "background", "multi_label", "shapes"),
)
