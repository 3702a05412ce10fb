"""`parallel-infer bench`: a server under load, and what holds it up."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from parallel_infer.chains.steps import JOIN
from parallel_infer.cli.common_options import json_option, pictures_option
from parallel_infer.cli.config_options import configuration
from parallel_infer.cli.parameter_types import FiniteRange, GivenPath
from parallel_infer.cli.serve import command as serve
from parallel_infer.cli.server_options import GivenKey, file_of, read_once
from parallel_infer.errors import ConfigError
from parallel_infer.files.outputs import Inputs, check_target, write_whole

if TYPE_CHECKING:
    from parallel_infer.tools.bench.figures import Comparison, Level, Run
    from parallel_infer.tools.bench.measure import Bench, Demand

CONCURRENCY = "1,8,32,128"
_SHIPPED = "detector=zoo:detector"
_ROUNDS = 3  # of a comparison
_IN_FLIGHT = 32  # of the pipeline in a comparison, where no closed loop was asked for


def _numbers(kind: type[int] | type[float]) -> Callable[..., Any]:
    """Reads positive numbers with commas between them."""

    def read(_context: click.Context, _option: click.Parameter, value: str | None) -> Any:
        if value is None:
            return None
        try:
            numbers = [kind(part) for part in value.split(",") if part.strip()]
        except ValueError:
            numbers = []
        if not numbers or not all(0 < number < 10**7 for number in numbers):
            raise click.BadParameter(f"{value!r} is not a list of positive numbers such as 1,8,32")
        return numbers

    return read


def _frame_size(_context: click.Context, _option: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Reads a width and a height."""
    if value is None:
        return None
    width, _, height = value.partition("x")
    if not (width.isdecimal() and height.isdecimal() and 0 < int(width) < 10**5 and 0 < int(height) < 10**5):
        raise click.BadParameter(f"{value!r} is no size of a frame such as 640x480")
    return int(width), int(height)


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What the command was asked for."""

    server: str | None
    key: GivenKey
    models: tuple[str, ...]
    model_name: str | None
    pictures: Path | None
    frames: tuple[int, int] | None
    concurrency: list[int] | None
    rate: list[float] | None
    seconds: float
    timeout: float
    within_ms: float
    processes: int
    rounds: int
    compare: str | None
    serve_options: tuple[str, ...]

    @property
    def in_flight(self) -> list[int]:
        """The closed loops: as asked for; the usual ones where no open loop was asked for either."""
        return self.concurrency or ([] if self.rate else [int(part) for part in CONCURRENCY.split(",")])

    @property
    def serving(self) -> list[str]:
        """Options of a server of one's own. Without any model among them: the shipped detector."""
        models = self.models
        if not models and not any(word.startswith(("--model", "--config")) for word in self.serve_options):
            models = (_SHIPPED,)
        return [*(word for model in models for word in ("--model", model)), *self.serve_options]

    @property
    def as_frames(self) -> str:
        """What to add to the name of the pictures."""
        return "" if self.frames is None else f", as frames of {self.frames[0]}x{self.frames[1]}"

    def check(self) -> None:
        if self.frames is not None and self.compare is not None:
            raise click.UsageError("--compare decodes pictures, so it goes without --frames")
        if self.server is not None and (self.models or self.serve_options):
            raise click.UsageError("--server names a server that runs; --model and options after -- start another one")
        if self.server is not None and self.compare is not None:
            raise click.UsageError("--compare runs the model in this process as well, so it needs --model NAME=PATH")

    def check_outputs(self, outputs: dict[str, Path | None], baseline: Path | None) -> None:
        """Refuse to write over anything that is read, or one output over the other. Raises ConfigError."""
        from parallel_infer.tools.bench.payloads import picture_files

        given = {place: path for place, path in outputs.items() if path is not None}
        if not given:
            return
        words = [word.rpartition("=")[2] for word in self.serve_options]  # most of them are no files
        pictures = picture_files(self.pictures) if self.pictures else ()
        for files in (baseline, file_of(self.key), *words, *pictures), self._model_files():
            inputs = Inputs(files)
            for place, path in given.items():
                check_target(path, inputs, place)
        if len({os.path.realpath(path) for path in given.values()}) < len(given):
            raise click.UsageError(f"{' and '.join(given)} name the same file")

    def _model_files(self) -> Iterator[Path]:
        """Of the server of one's own: every model and the weights beside it."""
        from parallel_infer.model_files.content import data_files

        if self.server is None:
            for model in configuration(serve.make_context("serve", self.serving).params).config.models.values():
                yield from (Path(model.path), *data_files(Path(model.path)))


@click.command("bench", context_settings={"ignore_unknown_options": False})
@click.option("--server", metavar="ADDRESS", help="A server that runs; without it one is started, and stopped again.")
@click.option(
    "--key", type=GivenPath(dir_okay=False), callback=read_once, help="Key file, where that server asks for one."
)
@click.option(
    "--model", "models", multiple=True, metavar="NAME=PATH", help="A model that the server of its own serves."
)
@click.option("--model-name", metavar="NAME", help="Which model to ask, where there are several; else the first.")
@pictures_option
@click.option(
    "--frames",
    metavar="WIDTHxHEIGHT",
    callback=_frame_size,
    help="Send frames of this size, decoded already, instead; over ipc in memory that the server lends.",
)
@click.option(
    "--concurrency",
    metavar="N,N,...",
    callback=_numbers(int),
    help=f"Closed loops: jobs in flight at any time.  [default: {CONCURRENCY}, unless --rate is given]",
)
@click.option(
    "--rate",
    metavar="R,R,...",
    callback=_numbers(float),
    help="Open loops: jobs per second at random moments; latency counts from when a job fell due.",
)
@click.option(
    "--seconds", type=FiniteRange(0.1, 3600), default=5.0, show_default=True, help="Length of each measurement."
)
@click.option(
    "--within-ms",
    type=FiniteRange(0, min_open=True),
    default=1000.0,
    show_default=True,
    help="Open loops: an answer within this time of falling due counts as goodput.",
)
@click.option("--timeout", type=FiniteRange(0.01, 600), default=10.0, show_default=True, help="Per request, in s.")
@click.option(
    "--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes that make the load."
)
@click.option("--rounds", type=click.IntRange(1, 100), default=_ROUNDS, show_default=True, help="Of --compare.")
@click.option(
    "--compare",
    type=click.Choice(["sync"]),
    help="Run the same model in a plain synchronous loop as well, in turns, and tell the ratio.",
)
@json_option
@click.option("--save", type=GivenPath(dir_okay=False, path_type=Path), help="Save the run as JSON.")
@click.option(
    "--baseline",
    type=GivenPath(exists=True, dir_okay=False, path_type=Path),
    help="A saved run: print this one's ratios to it.",
)
@click.option(
    "--plot",
    type=GivenPath(dir_okay=False, path_type=Path),
    help="Draw throughput and latency as PNG; needs matplotlib.",
)
@click.argument("serve_options", nargs=-1, type=click.UNPROCESSED)
def command(as_json: bool, save: Path | None, baseline: Path | None, plot: Path | None, **given: Any) -> None:
    """Measure a server under load: throughput, latency, where the time goes and what holds it up.

    Options of `serve` for a server of its own stand after `--`. Exit codes: 0 measured, 1 no job was answered, 2 bad
    usage.

    \b
    parallel-infer bench                                            the shipped detector
    parallel-infer bench --model street=yolov8n.onnx -- --instances 2
    parallel-infer bench --server tcp://127.0.0.1:5555 --rate 50,100,200
    parallel-infer bench --compare sync --save before.json
    """  # noqa: D301  # click looks for the character itself
    options = BenchOptions(**given)
    options.check()
    from parallel_infer.cli import bench_report as report
    from parallel_infer.tools.bench import files

    options.check_outputs({"--save": save, "--plot": plot}, baseline)
    if plot is not None:
        from parallel_infer.tools.bench.plot import draw_run, load_figure

        load_figure()  # where matplotlib is missing, that is said before the measurement
    saved = None if baseline is None else files.read_run(baseline)
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        run = _measure(options)
        if saved is not None:
            report.print_baseline(run, saved)
    if save is not None:
        files.save_run(save, run)
    if plot is not None:
        write_whole(plot, draw_run(run))
    if as_json:
        click.echo(files.as_json(run))
    if not any(level.answers for level in run.levels):
        raise click.ClickException("no job was answered")


def _measure(options: BenchOptions) -> Run:
    """Everything, told as it goes."""
    from parallel_infer.cli import bench_report as report
    from parallel_infer.tools.bench.figures import Run
    from parallel_infer.tools.bench.machine import Origin

    origin = Origin.here(_command())
    for line in origin.lines():
        click.echo(line)
    with _bench(options) as (bench, facts):
        click.echo(f"model: {facts['name']}, {facts['task']}, {facts['provider']}")
        levels = _levels(options, bench)
        click.echo()
        report.print_levels(levels)
        comparison = _compare(options, bench, levels) if options.compare else None
    if comparison is not None:
        report.print_comparison(comparison)
    return Run(
        origin=origin,
        model=str(facts["name"]),
        task=str(facts["task"]),
        provider=str(facts["provider"]),
        settings=_settings(options),
        levels=tuple(levels),
        comparison=comparison,
    )


def _levels(options: BenchOptions, bench: Bench) -> list[Level]:
    from parallel_infer.cli import bench_report as report
    from parallel_infer.tools.bench.measure import demands

    levels = []
    for seed, demand in enumerate(demands(_demand(options), options.in_flight, options.rate or [])):
        level = bench.measure(demand, seed)
        report.print_level(level)
        levels.append(level)
    return levels


def _compare(options: BenchOptions, bench: Bench, levels: list[Level]) -> Comparison:
    from parallel_infer.tools.bench.comparison import compare

    closed = [level for level in levels if level.in_flight > 1]  # one at a time is no pipeline
    best = max(closed, key=lambda level: level.per_second).in_flight if closed else _IN_FLIGHT
    config = configuration(serve.make_context("serve", options.serving).params).config
    return compare(bench, replace(_demand(options), in_flight=best), config, options.rounds)


@contextlib.contextmanager
def _bench(options: BenchOptions) -> Iterator[tuple[Bench, dict[str, Any]]]:
    """The server, its client and its load, ready."""
    from parallel_infer.cli.server_options import connected
    from parallel_infer.process.endings import ended_by_signals
    from parallel_infer.tools.bench.generators import Generators, Target
    from parallel_infer.tools.bench.measure import Bench, source_for
    from parallel_infer.tools.bench.payloads import SUFFIXES, picture_folder, shipped_pictures
    from parallel_infer.tools.local_server import local_server

    with ended_by_signals(), contextlib.ExitStack() as stack:
        folder = options.pictures or stack.enter_context(shipped_pictures())
        found = picture_folder(folder)
        if found.left_out:
            click.echo(f"left out of {folder}: {found.left_out}", err=True)
        if not found.pictures:  # said before a server is started
            raise ConfigError(f"--pictures {folder} holds no pictures ({', '.join(sorted(SUFFIXES))})")
        address, processes = options.server, tuple[int, ...]()
        if address is None:
            server = stack.enter_context(local_server(*options.serving))
            address, processes = server.address, tuple(server.processes())
        client = stack.enter_context(connected(address, options.key, 30.0))
        facts = _facts(client.models(), options.model_name)
        target = Target(address, source_for(facts, str(folder), options.frames), options.key)
        generators = stack.enter_context(Generators(target, options.processes))
        generators.ready()
        yield Bench(client, generators, str(facts["name"]), processes), facts


def _facts(models: list[dict[str, Any]], name: str | None) -> dict[str, Any]:
    """What the server says about the model to ask."""
    found = [facts for facts in models if name in (None, facts["name"])]
    together = [facts for facts in models if name is not None and facts["name"] in name.split(JOIN)]
    if not found and name is not None and len(together) == len(name.split(JOIN)) > 1:  # a fan
        return {**together[0], "name": name, "task": "fan"}
    if not found:
        names = ", ".join(str(facts["name"]) for facts in models)
        raise ConfigError(f"the server does not serve {name!r}; it serves {names or 'no model at all'}")
    return found[0]


def _demand(options: BenchOptions) -> Demand:
    from parallel_infer.tools.bench.measure import Demand

    return Demand(seconds=options.seconds, timeout=options.timeout, within=options.within_ms / 1000)


def _settings(options: BenchOptions) -> dict[str, float | int | str]:
    """What else must be the same for two runs to be comparable."""
    return {
        "seconds": options.seconds,
        "timeout": options.timeout,
        "within_ms": options.within_ms,
        "processes": options.processes,
        "pictures": ("shipped, 1280x720" if options.pictures is None else options.pictures.name) + options.as_frames,
        "serve options": shlex.join(options.serve_options),
    }


def _command() -> str:
    """The command line, as somebody else would type it."""
    script = "python benchmarks/bench.py" if Path(sys.argv[0]).name == "bench.py" else "parallel-infer"
    return f"{script} {shlex.join(sys.argv[1:])}".rstrip()
