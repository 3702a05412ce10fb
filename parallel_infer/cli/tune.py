"""`parallel-infer tune`: settings for a model on this machine, found by measuring."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from parallel_infer.cli.common_options import json_option, pictures_option
from parallel_infer.cli.parameter_types import FiniteRange, GivenPath
from parallel_infer.cli.tables import print_table
from parallel_infer.execution_providers import PROVIDERS

if TYPE_CHECKING:
    from parallel_infer.tools.tuning.search import Goal, Trial
    from parallel_infer.tools.tuning.settings import Settings
    from parallel_infer.tools.tuning.trials import Subject

Advance = Callable[[str], None]


@click.command("tune")
@click.argument("model")
@click.option(
    "--target", type=click.Choice(["throughput"]), default="throughput", show_default=True, help="What is better."
)
@click.option(
    "--p99-ms",
    type=FiniteRange(0, min_open=True),
    help="Most pictures/s of which 99 in 100 take at most this long.",
)
@click.option(
    "--output", type=GivenPath(dir_okay=False, path_type=Path), help="Write the settings, for serve --config."
)
@click.option("--seconds", type=FiniteRange(0.1, 600), default=3.0, show_default=True, help="Of each measurement.")
@click.option("--concurrency", type=click.IntRange(1, 4096), default=32, show_default=True, help="Jobs in flight.")
@click.option("--rounds", type=click.IntRange(2, 50), default=3, show_default=True, help="Of the finals.")
@pictures_option
@click.option(
    "--provider",
    "providers",
    multiple=True,
    type=click.Choice(PROVIDERS),
    help="Try only these; else all but tensorrt, whose engines take minutes to build.",
)
@click.option("--precision", "precisions", multiple=True, type=click.Choice(["fp32", "bf16", "fp16"]), help="As above.")
@json_option
def command(model: str, output: Path | None, as_json: bool, **options: Any) -> None:
    """Find good settings for MODEL, an ONNX file or zoo:NAME, on this machine.

    Tries providers, precisions, instances, threads, batch sizes and decode workers around the default, one after the
    other, then measures the best of them and the default in turns. What does not beat the default beyond noise is not
    suggested.

    \b
    parallel-infer tune yolov8n.onnx --output tuned.toml
    parallel-infer tune yolov8n.onnx --p99-ms 50
    parallel-infer serve --config tuned.toml
    """  # noqa: D301  # click looks for the character itself
    from parallel_infer.files.outputs import Inputs, check_target, write_whole
    from parallel_infer.model_files.content import data_files
    from parallel_infer.model_files.location import find_model, zoo_name
    from parallel_infer.tools.bench.payloads import picture_files

    path = find_model(model, Path())
    if output is not None:
        pictures = picture_files(options["pictures"]) if options["pictures"] else []
        check_target(output, Inputs([path, *data_files(Path(path)), *pictures]), "--output")
    with _subject(path, options) as subject:
        trials, chosen = _tune(subject, options)
    goal = _goal(options["p99_ms"])
    base = trials[0]
    text = _toml(subject.name, zoo_name(path) or path, base, chosen)
    if as_json:
        click.echo(json.dumps(_as_map(trials, chosen, text)))
    else:
        _print(trials, chosen, goal)
    if output is not None:
        write_whole(output, text.encode())
        click.echo(f"written: {output}; start with parallel-infer serve --config {output}", err=True)


@contextlib.contextmanager
def _subject(path: str, options: dict[str, Any]) -> Iterator[Subject]:
    from parallel_infer.errors import ConfigError
    from parallel_infer.process.endings import ended_by_signals
    from parallel_infer.tools.bench.measure import Demand
    from parallel_infer.tools.bench.payloads import SUFFIXES, picture_folder, shipped_pictures
    from parallel_infer.tools.tuning.trials import Subject

    demand = Demand(in_flight=options["concurrency"], seconds=options["seconds"])
    with ended_by_signals(), contextlib.ExitStack() as stack:
        folder = options["pictures"] or stack.enter_context(shipped_pictures())
        found = picture_folder(folder)
        if found.left_out:
            click.echo(f"left out of {folder}: {found.left_out}", err=True)
        if not found.pictures:
            raise ConfigError(f"--pictures {folder} holds no pictures ({', '.join(sorted(SUFFIXES))})")
        yield Subject(_name(path), path, str(folder), demand, options["p99_ms"])


def _name(path: str) -> str:
    """Of the model, after its file; after its folder where the file is called model.onnx, as in Triton's layout."""
    file = Path(path)
    return file.parents[1].name if file.stem == "model" and file.parent.name.isdecimal() else file.stem


def _tune(subject: Subject, options: dict[str, Any]) -> tuple[list[Trial], Trial]:
    """All trials, the default first, and the one to suggest."""
    from parallel_infer.config.sources import load_config
    from parallel_infer.errors import ServerUnavailable
    from parallel_infer.tools.tuning.machine_space import DEFAULTS, available, default_settings
    from parallel_infer.tools.tuning.search import explore, finalists, winner

    config = load_config({"models": [f"{subject.name}={subject.path}"]}, None, {})
    base, space = default_settings(config)
    wanted = options["precisions"]
    choices = [pair for pair in available(options["providers"] or DEFAULTS) if not wanted or pair[1] in wanted]
    space, goal = replace(space, choices=choices), _goal(options["p99_ms"])
    with _progress() as advance:

        def measure(settings: Settings) -> Any:
            advance(_changes(settings, base))
            return subject.measure(settings)

        trials = explore(base, space.axes(), measure, goal)
        if trials[0].first.failure:
            raise ServerUnavailable(f"the default settings do not work: {trials[0].first.failure}")
        finals = finalists(trials, goal)
        if len(finals) > 1:
            _run_finals(subject, finals, options["rounds"], advance)
    return trials, winner(finals, goal)


def _run_finals(subject: Subject, finals: list[Trial], rounds: int, advance: Advance) -> None:
    """Measure the finalists in turns. Where there is no room for all servers at once, the last ones drop out."""
    from parallel_infer.errors import ServerUnavailable
    from parallel_infer.tools.tuning.trials import Finals

    base = finals[0].settings
    while len(finals) > 1:
        try:
            with Finals(subject, finals) as running:
                for number in range(rounds):
                    for trial in running.round(number):
                        advance(f"finals, round {number + 1}: {_changes(trial.settings, base)}")
            return
        except ServerUnavailable:
            for trial in finals:
                trial.rounds.clear()
            finals.pop()


def _goal(p99_ms: float | None) -> Goal:
    from parallel_infer.tools.tuning.search import LatencyLimit, Throughput

    return Throughput() if p99_ms is None else LatencyLimit(p99_ms)


@contextlib.contextmanager
def _progress() -> Iterator[Advance]:
    """A line on stderr that says what is measured; where that is no terminal, one line each."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: click.echo(f"measuring {text}", err=True)
        return
    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda text: progress.update(task, advance=1, description=text)


def _changes(settings: Settings, base: Settings) -> str:
    changes = settings.differences(base)
    return ", ".join(f"{name}={value}" for name, value in changes.items()) or "default"


def _print(trials: list[Trial], chosen: Trial, goal: Goal) -> None:
    base = trials[0]
    names = list(base.settings.values())
    columns = (*(name.replace("_", " ") for name in names), "in flight", "pictures/s", "p99 ms", "")
    ordered = sorted(trials, key=lambda trial: goal.score(trial.median()), reverse=True)
    print_table(columns, [_row(trial, base, chosen) for trial in ordered])
    click.echo()
    if chosen is base:
        click.echo("keep the default settings: nothing beats them beyond noise")
        return
    gain = chosen.median().per_second / max(1e-9, base.median().per_second)
    click.echo(f"suggested: {_changes(chosen.settings, base.settings)}")
    click.echo(f"{gain:.2f} times the pictures/s of the default, in the middle of {len(chosen.rounds)} rounds in turns")
    if chosen.settings.precision != base.settings.precision:
        click.echo(
            f"note: answers in {chosen.settings.precision} may differ a little from those in {base.settings.precision}"
        )


def _row(trial: Trial, base: Trial, chosen: Trial) -> tuple[str, ...]:
    outcome = trial.median()
    notes = ["default"] if trial is base else []
    notes += ["chosen"] if trial is chosen else []
    notes += [f"median of {len(trial.rounds)}"] if trial.rounds else []
    figures = [str(outcome.in_flight or "-"), f"{outcome.per_second:.1f}", f"{outcome.p99_ms:.1f}"]
    if outcome.failure:
        figures, notes = ["-", "-", "-"], [*notes, outcome.failure]
    return (*map(str, trial.settings.values().values()), *figures, ", ".join(notes))


def _toml(name: str, path: str, base: Trial, chosen: Trial) -> str:
    from parallel_infer.tools.bench.machine import Origin
    from parallel_infer.tools.tuning.settings import to_toml

    outcome = chosen.median()
    origin = Origin.here(f"parallel-infer {shlex.join(sys.argv[1:])}")
    figures = (
        f"{outcome.per_second:.1f} pictures/s, p99 {outcome.p99_ms:.1f} ms with {outcome.in_flight} jobs in flight"
    )
    changes = chosen.settings.differences(base.settings)
    verdict = "measured" if changes else "nothing beat the default beyond noise; measured"
    return to_toml(name, path, changes, [*origin.lines(), f"{verdict}: {figures}"])


def _as_map(trials: list[Trial], chosen: Trial, text: str) -> dict[str, Any]:
    rows = [
        {"settings": trial.settings.values(), **asdict(trial.median()), "rounds": len(trial.rounds)} for trial in trials
    ]
    return {
        "default": trials[0].settings.values(),
        "chosen": chosen.settings.values(),
        "keep_default": chosen is trials[0],
        "trials": rows,
        "toml": text,
    }
