"""`parallel-infer run-async`: a model with several jobs in flight, as `vart_infer_async` runs one on AMD's runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from parallel_infer.cli.common_options import json_option, provider_option
from parallel_infer.cli.parameter_types import FiniteRange, GivenPath
from parallel_infer.errors import ConfigError, InferError

if TYPE_CHECKING:
    import numpy as np

    from parallel_infer.inference.signature import Signature
    from parallel_infer.runner.async_pass import AsyncPass, Comparison
    from parallel_infer.runner.runner import Runner


def _shapes(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Reads INPUT=1,3,640,640."""
    shapes = {}
    for value in values:
        name, _, shape = value.rpartition("=")
        try:
            shapes[name] = tuple(int(part) for part in shape.split(","))
        except ValueError:
            shapes[name] = (0,)
        if not name or min(shapes[name]) < 1:
            raise click.BadParameter(f"{value!r} is not INPUT=NUMBER,NUMBER,...")
    return shapes


@click.command("run-async")
@click.option("--model-path", required=True, type=GivenPath(dir_okay=False, path_type=Path), help="The ONNX file.")
@click.option(
    "--input-binary",
    "files",
    multiple=True,
    metavar="FILE|NAME=FILE",
    help="An input as it lies in memory, without a header; once per input of the model.",
)
@click.option("-n", "--batches", "batches", type=click.IntRange(1), default=10, show_default=True, help="In all.")
@click.option("--jobs", type=click.IntRange(1, 256), default=2, show_default=True, help="Jobs in flight.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Size, where the model takes any.")
@click.option("--shape", "shapes", multiple=True, metavar="INPUT=SHAPE", callback=_shapes, help="Batch included.")
@provider_option("What runs the model.")
@click.option(
    "--precision", type=click.Choice(["auto", "fp32", "bf16", "fp16"]), default="auto", help="What it computes in."
)
@click.option("--threads", type=click.IntRange(1, 256), help="Of one run; all cores if not given.")
@click.option("--timeout", type=FiniteRange(0, min_open=True), default=60.0, help="Seconds for one batch.")
@click.option("--dry-run", is_flag=True, help="Random input; write nothing.")
@click.option("--benchmark", is_flag=True, help="Run one batch at a time as well, and compare.")
@click.option(
    "--output-dir",
    type=GivenPath(file_okay=False, path_type=Path),
    default=Path(),
    help="Where the outputs of the last job are written; here if not given.",
)
@json_option
def command(
    model_path: Path,
    files: tuple[str, ...],
    batches: int,
    jobs: int,
    batch: int,
    shapes: dict[str, tuple[int, ...]],
    dry_run: bool,
    benchmark: bool,
    timeout: float,
    output_dir: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Run a model with several jobs in flight, without a server.

    All job slots are filled, then the oldest job is waited for and its slot filled again, until so many batches have
    been submitted in all. The outputs of the last job are written as NAME_SHAPE.bin, without a header. Exit codes: 0
    every batch is complete, 1 one failed, 2 an option is wrong.
    """
    if dry_run == bool(files):
        raise click.UsageError("give either --input-binary, or --dry-run for random input")
    from parallel_infer.files.outputs import Inputs, make_folder
    from parallel_infer.model_files.content import data_files
    from parallel_infer.runner.async_pass import (  # not at the top: --help need not wait for ONNX Runtime
        AsyncPass,
        compare,
    )
    from parallel_infer.runner.raw_tensors import input_shapes, write_tensors

    read = Inputs([model_path, *data_files(Path(model_path)), *(file.rpartition("=")[2] for file in files), *files])
    if not dry_run:
        make_folder(output_dir, "--output-dir")
    with _runner(model_path, jobs, options) as runner:
        inputs = _inputs(runner.signature, files, input_shapes(runner.signature, batch, shapes))
        run, total, comparison = AsyncPass(runner, inputs, timeout), batches, None
        try:
            if benchmark:
                comparison = compare(run, total)
            else:
                run.run(total)
        except InferError:
            click.echo(f"Batches completed: {run.completed} / {total}", err=as_json)
            raise
        written = {} if dry_run else write_tensors(run.outputs, output_dir, read)
        frames = total * (runner.batch or next((len(array) for array in inputs.values() if array.ndim), 1))
        report = _report(run, total, frames, comparison, written)
    click.echo(json.dumps(report) if as_json else _text(report))


def _runner(model: Path, jobs: int, options: dict[str, Any]) -> Runner:
    from parallel_infer.inference.options import SessionConfig
    from parallel_infer.runner.runner import Runner

    config = SessionConfig(**{name: value for name, value in options.items() if value is not None})
    return Runner(model, jobs=jobs, config=config)


def _inputs(signature: Signature, files: tuple[str, ...], shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """From the files; random numbers where there are none."""
    from parallel_infer.runner.raw_tensors import random_tensors, read_tensor

    if not files:
        return random_tensors(signature, shapes)
    paths = _paths(files, [tensor.name for tensor in signature.inputs])
    return {tensor.name: read_tensor(paths[tensor.name], tensor, shapes[tensor.name]) for tensor in signature.inputs}


def _paths(files: tuple[str, ...], names: list[str]) -> dict[str, Path]:
    """The file of every input. A name may be left out where the model has one input."""
    paths = {}
    for value in files:
        name, equals, file = value.partition("=")
        if equals and name in names:
            paths[name] = Path(file)
        elif len(names) == 1:
            paths[names[0]] = Path(value)
        else:
            raise ConfigError(
                f"--input-binary {value}: say for which input, NAME=FILE; the inputs are {', '.join(names)}"
            )
    missing = [name for name in names if name not in paths]
    if missing or len(paths) != len(files):
        raise ConfigError(
            f"--input-binary: one file for each of {', '.join(names)}; missing: {', '.join(missing) or '-'}"
        )
    return paths


def _report(
    run: AsyncPass, total: int, frames: int, comparison: Comparison | None, written: dict[str, Path]
) -> dict[str, Any]:
    report: dict[str, Any] = {
        "provider": run.runner.describe(),
        "jobs": run.runner.jobs,
        "completed": run.completed,
        "total": total,
        "outputs": [
            {"name": name, "dtype": array.dtype.name, "shape": list(array.shape), "file": str(written.get(name, ""))}
            for name, array in run.outputs.items()
        ],
    }
    if comparison is not None:
        report["benchmark"] = {
            way: {"ms": seconds * 1e3, "ms_per_frame": seconds * 1e3 / frames}
            for way, seconds in (("synchronous", comparison.synchronous), ("asynchronous", comparison.asynchronous))
        }
    return report


def _text(report: dict[str, Any]) -> str:
    lines = [f"Running on {report['provider']}, {report['jobs']} jobs in flight"]
    for output in report["outputs"]:
        file = f" -> {output['file']}" if output["file"] else ""
        lines.append(f"Output {output['name']}: {output['dtype']} {output['shape']}{file}")
    for way, times in report.get("benchmark", {}).items():
        lines.append(f"{way.capitalize():<13} {times['ms']:10.2f} ms {times['ms_per_frame']:10.3f} ms/frame")
    lines.append(f"Batches completed: {report['completed']} / {report['total']}")
    return "\n".join(lines)
