"""`parallel-infer inspect`: what an ONNX file is, how it would be served, and why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from parallel_infer.cli.common_options import json_option
from parallel_infer.cli.parameter_types import FiniteRange, GivenPath
from parallel_infer.errors import ConfigError, ModelRejected
from parallel_infer.model_files.location import ZOO_PREFIX, find_model
from parallel_infer.model_spec import ModelSpec, TensorSpec
from parallel_infer.pipeline import load_pipeline

_HEADING = 15  # columns


def _numbers(number: Callable[[str], int | float], form: str) -> Callable[..., Any]:
    """Reads numbers with commas between them; one alone stays one."""

    def read(_context: click.Context, _option: click.Parameter, value: str | None) -> Any:
        if value is None:
            return None
        try:
            numbers = [number(part) for part in value.split(",")]
        except ValueError:
            raise click.BadParameter(f"{value!r} is not {form}") from None
        return numbers[0] if len(numbers) == 1 else numbers

    return read


def _shapes(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> dict[str, list[int]]:
    """Reads INPUT=3,224,224, the shape of one input without the batch dimension."""
    shapes = {}
    for value in values:
        name, _, shape = value.rpartition("=")
        try:
            shapes[name] = [int(part) for part in shape.split(",") if part]
        except ValueError:
            raise click.BadParameter(f"{value!r} is not INPUT=NUMBER,NUMBER,...") from None
    return shapes


_SIZE, _COLOUR, _POINTS = "SIDE or HEIGHT,WIDTH", "NUMBER or R,G,B", "POINTS,VALUES"


@click.command("inspect")
@click.argument("model", type=GivenPath(dir_okay=False, path_type=Path))
@json_option
@click.option("--family", help="Layout of the outputs; see docs/models.md.")
@click.option("--task", help="classify, detect, segment, keypoints, obb, semantic, map, embedding, text or tensor.")
@click.option("--names", help="Class names with commas between them.")
@click.option("--resize", help="stretch, letterbox, letterbox-corner or crop.")
@click.option(
    "--imgsz",
    metavar="SIDE|HEIGHT,WIDTH",
    callback=_numbers(int, _SIZE),
    help="Size of a row, where the graph takes any.",
)
@click.option("--crop-fraction", type=FiniteRange(), help="Part of the centre that crop keeps.")
@click.option("--conf", type=FiniteRange(), help="Lowest confidence of an answer.")
@click.option("--iou", type=FiniteRange(), help="Overlap at which two boxes are one object.")
@click.option("--mean", metavar="NUMBER|R,G,B", callback=_numbers(float, _COLOUR), help="Of pixels 0..255.")
@click.option("--std", metavar="NUMBER|R,G,B", callback=_numbers(float, _COLOUR), help="Of pixels 0..255.")
@click.option("--color", help="rgb or bgr.")
@click.option("--pad", type=int, help="Pixel value around a letterboxed picture.")
@click.option("--background", type=int, help="RF-DETR's class slot that means nothing.")
@click.option("--multi-label", is_flag=True, default=None, help="Several classes may be true at once.")
@click.option(
    "--kpt-shape",
    metavar=_POINTS,
    callback=_numbers(int, _POINTS),
    help="Keypoints of an object, values of each (2 or 3).",
)
@click.option("--shape", "shapes", multiple=True, metavar="INPUT=SHAPE", callback=_shapes, help="Without the batch.")
def command(model: Path, as_json: bool, shapes: dict[str, list[int]], **overrides: Any) -> None:
    """Tell what MODEL, an ONNX file or zoo:NAME, is and how it would be served, and try it out on one CPU thread.

    The options say what the file does not; they have the names of the configuration file. Exit codes: 0 the model can
    be served, 1 it is rejected, 2 an option is wrong.
    """
    given = {key: value for key, value in overrides.items() if value is not None}
    try:
        path = Path(find_model(str(model), Path())) if str(model).startswith(ZOO_PREFIX) else model
        spec = load_pipeline().describe(path.stem, path, {**given, "shapes": shapes})
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except ModelRejected as error:
        _reject(str(error), as_json)
    report = _report(spec)
    click.echo(json.dumps(report) if as_json else _text(spec, report))


def _reject(reason: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"error": reason, "code": ModelRejected.code}))
    else:
        click.echo(f"rejected: {reason}", err=True)
    raise click.exceptions.Exit(1)


def _report(spec: ModelSpec) -> dict[str, Any]:
    from parallel_infer.inference.options import SessionConfig
    from parallel_infer.inference.providers import survey

    built: dict[str, Any] = msgspec.to_builtins(spec)
    return {
        **built,
        "path": Path(spec.path).name,
        "batchable": spec.batch is None,
        "export": None if spec.batch is None else _export(spec),
        "classes": len(spec.names) or spec.parameters.get("classes", 0),
        "providers": sorted(survey(SessionConfig(provider="cpu")).providers),
    }


def _export(spec: ModelSpec) -> str:
    """How to export the model with a batch of any size."""
    return str(spec.parameters.get("export") or load_pipeline().export_command(spec.family))


def _text(spec: ModelSpec, report: dict[str, Any]) -> str:
    batch = "any size" if spec.batch is None else f"always {spec.batch}; for any size: {report['export']}"
    lines = [
        ("model", [f"{spec.name} ({report['path']})"]),
        ("task", [spec.task]),
        ("family", [spec.family]),
        ("evidence", list(spec.evidence)),
        ("inputs", [_tensor(tensor) for tensor in spec.inputs]),
        ("outputs", [_tensor(tensor) for tensor in spec.outputs]),
        ("batch", [batch]),
        ("preprocessing", _preprocessing(spec.preprocess)),
        ("parameters", [f"{key} = {value}" for key, value in spec.parameters.items()]),
        ("classes", [_classes(spec, report["classes"])] if spec.task != "tensor" else []),
        ("providers", [", ".join(report["providers"])]),
        ("warnings", list(spec.warnings)),
    ]
    return "\n".join(_paragraph(heading, entries) for heading, entries in lines if entries)


def _paragraph(heading: str, entries: list[str]) -> str:
    return "\n".join(f"{heading if number == 0 else '':<{_HEADING}}{entry}" for number, entry in enumerate(entries))


def _tensor(tensor: TensorSpec) -> str:
    return f"{tensor.name} {tensor.dtype} [{', '.join('?' if dim < 0 else str(dim) for dim in tensor.shape)}]"


def _preprocessing(preprocess: dict[str, Any]) -> list[str]:
    if not preprocess:
        return ["none: tensors come ready"]
    crop = f" of {preprocess['crop_fraction']:g}" if preprocess["resize"] == "crop" else ""
    pad = f", filled with {preprocess['pad']}" if preprocess["resize"].startswith("letterbox") else ""
    size = f"{preprocess['width']} x {preprocess['height']} (width x height)"
    return [
        f"{preprocess['resize']}{crop} to {size}{pad}, {preprocess['filter']}",
        f"{preprocess['color']}, {preprocess['layout']}, into {preprocess['input']}",
        f"(pixel - mean) / std with mean {_triple(preprocess['mean'])}, std {_triple(preprocess['std'])}",
        *(f"{name} = {_shortened(values)}" for name, values in preprocess["constants"].items()),
    ]


def _triple(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _shortened(values: list[float]) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:4])
    return shown if len(values) <= 4 else f"{shown}, ... ({len(values)} values)"


def _classes(spec: ModelSpec, count: int) -> str:
    if not spec.names:
        return f"{count or 'an unknown number'}, without names"
    shown = ", ".join(spec.names[:5])
    return f"{count}: {shown}{', ...' if len(spec.names) > 5 else ''}"
