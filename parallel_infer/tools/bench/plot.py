"""A run as a picture: throughput and latency over the load, drawn with matplotlib, which is the extra `plot`."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from parallel_infer.errors import ConfigError
from parallel_infer.tools.bench.figures import PERCENTILES, Level, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 12.0, 5.6  # inches
_DPI = 100
_ROOM = 1.08  # of the largest value, that an axis reaches

Lines = Mapping[str, Sequence[float]]  # one value per load, by name


def load_figure() -> type[Figure]:
    """Matplotlib's figure. Raises ConfigError where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("plots need matplotlib: pip install 'parallel-infer[plot]'") from error
    return Figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that needs no display. Raises ConfigError where matplotlib is not installed."""
    return load_figure()(figsize=(width, height), dpi=_DPI, layout="constrained")


def draw_run(run: Run) -> bytes:
    """The run as a PNG of 1200 x 560 pixels: throughput to the left, latency percentiles to the right.

    Raises ConfigError where matplotlib is not installed.
    """
    figure = new_figure(_WIDTH, _HEIGHT)
    figure.suptitle(f"{run.model}: {run.provider}\n{run.origin.processor}, {run.origin.cores} cores", fontsize="medium")
    figure.supxlabel(_axis(run.levels), fontsize="medium")
    throughput, latency = figure.subplots(1, 2)
    _draw_lines(throughput, "pictures per second", run.levels, _throughput(run))
    percentiles = {name: [level.latency_ms.get(name, 0.0) for level in run.levels] for name in PERCENTILES}
    _draw_lines(latency, "latency, ms", run.levels, percentiles)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def _draw_lines(axes: Axes, title: str, levels: Sequence[Level], lines: Lines) -> None:
    """Loads from left to right in equal steps, values from zero upwards; closed and open loops are not joined."""
    closed = sum(level.in_flight > 0 for level in levels)
    for number, (name, values) in enumerate(lines.items()):
        axes.plot(range(closed), values[:closed], color=f"C{number}", marker="o", label=name)
        axes.plot(range(closed, len(levels)), values[closed:], color=f"C{number}", marker="o")
    axes.set_title(title, loc="left")
    axes.set_xticks(range(len(levels)), [level.name.removesuffix(" in flight") for level in levels])
    axes.set_ylim(0, max((value for values in lines.values() for value in values), default=0.0) * _ROOM or 1.0)
    axes.grid(axis="y", alpha=0.3)
    if len(lines) > 1:
        axes.legend()


def _axis(levels: Sequence[Level]) -> str:
    kinds = {"jobs in flight" if level.in_flight else "jobs falling due per second" for level in levels}
    return " / ".join(sorted(kinds, reverse=True))


def _throughput(run: Run) -> Lines:
    lines = {"answered": [level.per_second for level in run.levels]}
    if any(level.rate for level in run.levels):
        lines["in time"] = [level.goodput if level.rate else level.per_second for level in run.levels]
    if run.comparison is not None:
        best = max(run.comparison.single, run.comparison.batched)
        lines["synchronous loop"] = [best] * len(run.levels)
        if run.comparison.ceiling is not None:
            lines["ceiling of the cores"] = [run.comparison.ceiling] * len(run.levels)
    return lines
