"""The ratios as a picture: one bar per peer and load, the line is where both are equally fast."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parallel_infer.tools.bench.plot import new_figure

_WIDTH, _MARGIN, _BAR = 9.8, 1.0, 0.22  # inches: of the picture, of its title and axis, of one bar


def write_plot(summaries: Sequence[dict[str, Any]], path: Path) -> None:
    """Write a PNG of all ratios; nothing where there is none. Raises ConfigError where matplotlib is missing."""
    bars = [(pair, point) for pair in summaries for point in pair["points"] if "ratio" in point]
    if not bars:
        return
    figure = new_figure(_WIDTH, _MARGIN + len(bars) * _BAR)
    axes = figure.subplots()
    loads = sorted({_load(point) for _, point in bars})
    for place, (_, point) in enumerate(bars):
        ratio = point["ratio"]
        whisker = [[ratio - point["lowest"]], [point["highest"] - ratio]]
        axes.barh(place, ratio, color=f"C{loads.index(_load(point))}", xerr=whisker, capsize=2)
        axes.annotate(f"{ratio:.2f}", (point["highest"], place), (4, 0), textcoords="offset points", va="center")
    titles = [f"{_model(pair)}, {pair['peer_title']}, {_load(point)}, {point['over']}" for pair, point in bars]
    axes.set_yticks(range(len(bars)), titles)
    axes.invert_yaxis()
    axes.axvline(1.0, color="grey", linewidth=1)
    axes.margins(x=0.08, y=0.01)
    axes.set_title(
        "ours / peer, pictures per second\n(line: equal; whisker: lowest and highest round)", fontsize="medium"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _model(pair: dict[str, Any]) -> str:
    return f"{pair['model']} ({pair['filter']['shown']})"


def _load(point: dict[str, Any]) -> str:
    return "2x capacity" if point["kind"] == "overload" else f"{point['in_flight']} in flight"
