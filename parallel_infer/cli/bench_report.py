"""Figures for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from parallel_infer.cli.tables import print_table
from parallel_infer.tools.bench.figures import Comparison, Level, Run

_COLUMNS = ("load", "pictures/s", "goodput/s", "p50 ms", "p90 ms", "p99 ms", "batch", "errors")


def print_level(level: Level) -> None:
    """All that is known of one load, as soon as it is known."""
    click.echo(f"\n{level.name}: {level.per_second:,.1f} pictures/s over {level.seconds:g} s")
    for line in _details(level):
        click.echo(f"  {line}")
    for warning in level.warnings:
        click.echo(f"  warning: {warning}")


def print_levels(levels: Sequence[Level]) -> None:
    """One line each."""
    print_table(_COLUMNS, [_row(level) for level in levels])


def print_comparison(comparison: Comparison) -> None:
    """The pipeline beside the loop, and beside what the cores could do."""
    best = max(comparison.single, comparison.batched)
    click.echo(
        f"\npipeline and synchronous loop, {comparison.provider}, {comparison.threads} threads of ONNX Runtime in the "
        f"loop, medians of {comparison.rounds} rounds that alternate:"
    )
    rows = [
        (f"pipeline, {comparison.in_flight} in flight", comparison.pipeline, "pipeline"),
        ("loop, one picture at a time", comparison.single, "single"),
        (f"loop, batches of {comparison.batch}", comparison.batched, "batched"),
    ]
    cells = [
        (name, f"{figure:,.1f}", _range(comparison.spread[key]), f"{comparison.pipeline / figure:.2f}")
        for name, figure, key in rows
    ]
    print_table(("", "pictures/s", "least to most", "pipeline is times"), cells)
    click.echo(f"the pipeline is {comparison.pipeline / best:.2f} times as fast as the better loop")
    _print_ceiling(comparison)


def print_baseline(run: Run, baseline: Run) -> None:
    """Ratios to a saved run: above 1, more pictures/s or more milliseconds than there."""
    click.echo("\ncompared with the saved run (this one divided by that one):")
    for difference in run.origin.differences(baseline.origin):
        click.echo(f"  warning: not the same {difference}: the ratios tell of that too")
    for difference in _setting_differences(run, baseline):
        click.echo(f"  warning: not the same {difference}")
    rows = [_ratios(level, saved) for level, saved in matching(run, baseline)]
    if rows:
        print_table(("load", "pictures/s", "p50 ms", "p90 ms", "p99 ms"), rows)
    else:
        click.echo("  no load of this run is in the saved one")


def matching(run: Run, baseline: Run) -> list[tuple[Level, Level]]:
    """The loads that both runs made."""
    saved = {(level.in_flight, level.rate): level for level in baseline.levels}
    pairs = [(level, saved.get((level.in_flight, level.rate))) for level in run.levels]
    return [(level, other) for level, other in pairs if other is not None]


def ratio(here: float, there: float) -> float | None:
    """Of two figures; None where there is nothing to divide by."""
    return here / there if there else None


def _row(level: Level) -> tuple[str, ...]:
    latencies = [f"{level.latency_ms[name]:.1f}" if level.latency_ms else "-" for name in ("p50", "p90", "p99")]
    goodput = f"{level.goodput:,.1f}" if level.rate else "-"
    return (level.name, f"{level.per_second:,.1f}", goodput, *latencies, f"{level.batch:.1f}", _errors(level))


def _details(level: Level) -> Iterator[str]:
    if level.rate:
        yield (
            f"fell due: {level.offered:,.1f}/s; goodput: {level.goodput:,.1f}/s, answered within {level.within_ms:g} ms"
        )
    if level.latency_ms:
        yield "latency: " + ", ".join(f"{name} {ms:.1f} ms" for name, ms in level.latency_ms.items())
    if level.errors:
        yield f"errors: {_errors(level)}"
    if level.times_ms:
        yield f"batches: {level.batch:.1f} on average, {level.gathered:.1%} of the rows copied together"
        yield "mean times: " + ", ".join(f"{name.replace('_', ' ')} {ms:.2f} ms" for name, ms in level.times_ms.items())
    if level.stages:
        yield "workers busy: " + ", ".join(f"{name} {share:.0%}" for name, share in level.stages.items())
    cores = {**level.processes, "load generator": level.generators}
    yield "cores used: " + ", ".join(f"{name} {share:.2f}" for name, share in cores.items())
    yield f"bottleneck: {level.bottleneck}"


def _errors(level: Level) -> str:
    return ", ".join(f"{code} {count}" for code, count in sorted(level.errors.items())) or "0"


def _range(values: tuple[float, float]) -> str:
    return f"{values[0]:,.1f} to {values[1]:,.1f}"


def _print_ceiling(comparison: Comparison) -> None:
    steps, ceiling = comparison.steps, comparison.ceiling
    if steps is None or ceiling is None:
        click.echo("no ceiling is given: the model does not run on the processor")
        return
    click.echo(
        f"processor time per picture of each step alone: decode and resize {steps.decode:.2f} ms, "
        f"infer {steps.infer:.2f} ms, postprocess {steps.postprocess:.2f} ms"
    )
    click.echo(
        f"ceiling: {comparison.cores} cores / {steps.total:.2f} ms = {ceiling:,.1f} pictures/s; "
        f"the pipeline reaches {comparison.pipeline / ceiling:.0%} of it"
    )


def _setting_differences(run: Run, baseline: Run) -> Iterator[str]:
    pairs = {"model": (run.model, baseline.model), "provider": (run.provider, baseline.provider)}
    for name in sorted(run.settings.keys() | baseline.settings.keys()):
        pairs[name] = str(run.settings.get(name, "none")), str(baseline.settings.get(name, "none"))
    for name, (here, there) in pairs.items():
        if here != there:
            yield f"{name}: {here} here, {there} there"


def _ratios(level: Level, saved: Level) -> tuple[str, ...]:
    found = [ratio(level.per_second, saved.per_second)]
    found += [ratio(level.latency_ms.get(name, 0.0), saved.latency_ms.get(name, 0.0)) for name in ("p50", "p90", "p99")]
    return (level.name, *("-" if value is None else f"{value:.2f}" for value in found))
