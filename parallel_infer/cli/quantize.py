"""`parallel-infer quantize`: a smaller and, where the processor likes 8 bits, faster copy of a model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from parallel_infer.cli.common_options import json_option, provider_option
from parallel_infer.cli.parameter_types import GivenPath
from parallel_infer.errors import ModelRejected

if TYPE_CHECKING:
    from parallel_infer.tools.quantize.agreement import Agreement
    from parallel_infer.tools.quantize.quantization import Report
    from parallel_infer.tools.quantize.recipes import Speed

_FEW_PICTURES = 20  # fewer say little about the ranges of activations
_RECIPES = ("layers", "sums", "operators")


@click.command("quantize")
@click.argument("model")
@click.option(
    "--calibrate",
    "folder",
    required=True,
    type=GivenPath(exists=True, file_okay=False, path_type=Path),
    help="Folder of pictures like those the model will see; a hundred or more.",
)
@click.option(
    "--output", type=GivenPath(dir_okay=False, path_type=Path), help="Else MODEL with .int8 in its name, here."
)
@click.option(
    "--calibration",
    type=click.Choice(["minmax", "entropy", "percentile"]),
    default="minmax",
    show_default=True,
    help="How ranges are found; the others are slower and leave out extremes.",
)
@click.option(
    "--most",
    type=click.IntRange(1, 10_000),
    default=200,
    show_default=True,
    help="Pictures used, spread over the folder.",
)
@provider_option("What both models are run and timed with.")
@click.option(
    "--threads", type=click.IntRange(1, 256), help="Of both; as many as an instance that is served has if not given."
)
@click.option(
    "--recipe",
    "recipes",
    multiple=True,
    type=click.Choice(_RECIPES),
    help="What is put into 8 bits: what layers read, also what sums read, or every operator. May be given several "
    "times; all are tried if not given, and the fastest is kept.",
)
@click.option("--anyway", is_flag=True, help="Write the best copy even if it is slower or its answers moved far.")
@json_option
def command(
    model: str,
    folder: Path,
    output: Path | None,
    calibration: str,
    most: int,
    provider: str,
    threads: int | None,
    recipes: tuple[str, ...],
    anyway: bool,
    as_json: bool,
) -> None:
    """Make a quantized copy of MODEL, an ONNX file or zoo:NAME: 8-bit weights and activations.

    Tells how size, speed and the answers about the calibration pictures changed. Nothing is written where the model
    cannot be quantized, or no copy is faster and answers the same. Exit codes: 0 written, 1 nothing written, 2 bad
    usage.
    """
    import msgspec

    from parallel_infer.files.outputs import Inputs, check_target
    from parallel_infer.inference.options import SessionConfig
    from parallel_infer.model_files.location import find_model
    from parallel_infer.process.endings import ended_by_signals
    from parallel_infer.tools.bench.payloads import picture_folder
    from parallel_infer.tools.quantize.quantization import Calibration, quantize
    from parallel_infer.tools.quantize.recipes import Recipe

    path = Path(find_model(model, Path()))
    target = output or Path(f"{path.stem}.int8.onnx")
    found = picture_folder(folder)
    files = found.pictures
    check_target(target, Inputs([path, *files]), "--output")
    config = SessionConfig(provider=provider, threads=threads or 0)  # type: ignore[arg-type]  # one of the choices
    payloads = [file.read_bytes() for file in spread(files, most)]
    if not payloads:
        raise click.UsageError(f"{folder} holds no pictures{found.left_out and f', but {found.left_out}'}")
    try:
        with ended_by_signals():  # its drafts are as large as the model
            tried = [Recipe(name) for name in recipes or _RECIPES]
            report = quantize(path, payloads, target, Calibration[calibration.upper()], config, tried, anyway=anyway)
    except ModelRejected as error:
        raise click.ClickException(f"not quantized: {error}") from error
    left_out = [f"left out of {folder}: {found.left_out}"] if found.left_out else []
    warnings = [*left_out, *_warnings(report)]
    if as_json:
        click.echo(json.dumps({"output": str(target), **msgspec.to_builtins(report), "warnings": warnings}))
        return
    for line in _lines(report):
        click.echo(line)
    for warning in warnings:
        click.echo(f"warning: {warning}")
    click.echo(f"written: {target}")


def spread(files: list[Path], most: int) -> list[Path]:
    """At most so many of the files, evenly spread."""
    if len(files) <= most:
        return files
    return [files[index * len(files) // most] for index in range(most)]


def _lines(report: Report) -> Iterator[str]:
    speed = report.speed
    views = f" and {report.views} views of them" if report.views else ""
    yield f"calibrated with {report.pictures} pictures{views}"
    yield f"{report.kept_in_float} operators at the end stay in float32"
    before, after = report.size_before / 2**20, report.size_after / 2**20
    yield f"size: {before:.1f} MB before, {after:.1f} MB after ({after / before:.2f} times)"
    for trial in report.trials:
        yield (
            f"recipe {trial.recipe}: {trial.speed.gain:.2f} times as fast, agreement {trial.agreement.share:.1%}"
            f"{_served_otherwise(trial.speed)}{', taken' if trial.recipe == report.recipe else ''}"
        )
    for recipe, why in report.failed.items():
        yield f"recipe {recipe}: no copy: {why}"
    yield (
        f"speed: {speed.before_ms:.1f} ms before, {speed.after_ms:.1f} ms after, {speed.gain:.2f} times as fast "
        f"({speed.provider}, {speed.threads} threads, batch {speed.batch}, in turns)"
    )
    asked = f"{report.agreement.pictures} pictures{' and views' if report.views else ''}"
    yield f"answers about the {asked}: {_agreement(report.agreement)}"


def _served_otherwise(speed: Speed) -> str:
    return "" if speed.provider == speed.provider_after else f" on {speed.provider_after}"


def _agreement(found: Agreement) -> str:
    if found.task == "classify":
        undecided = f" ({found.undecided} between two that score alike)" if found.undecided else ""
        return (
            f"same best class for {found.share:.1%}{undecided}; its score moved by {found.score_shift:.3f} on average"
        )
    return (
        f"{found.objects[0]} objects before, {found.objects[1]} after, {found.matched} in both "
        f"(mean IoU {found.iou:.3f}, score moved by {found.score_shift:.3f} on average, {found.class_changes} of "
        f"another class; {found.undecided} in one alone that hardly score enough do not count): "
        f"agreement {found.share:.1%}"
    )


def _warnings(report: Report) -> Iterator[str]:
    from parallel_infer.tools.quantize.recipes import least_agreement

    if report.skipped:
        yield f"{report.skipped} files are no pictures that can be read, and were left out"
    if report.pictures < _FEW_PICTURES:
        yield f"{report.pictures} pictures are few to calibrate with; take a hundred like those the model will see"
    if report.agreement.share < least_agreement(report.agreement.task):
        yield "the answers moved far; try --calibration entropy or percentile, or more pictures, or keep the model"
    if report.speed.gain <= 1:
        yield "the copy is slower here; it saves memory only"
