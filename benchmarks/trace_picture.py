"""A picture of a stretch of a trace, for documents; Perfetto shows far more. Needs matplotlib.

parallel-infer trace --seconds 1 -o trace.json
python benchmarks/trace_picture.py trace.json trace.png [--from-ms 200] [--ms 150]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from parallel_infer.tools.bench.plot import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, LANE, MARGIN = 12.0, 0.34, 0.6  # inches
SLICE = 0.7  # of a lane's height
CHARACTER = 0.075  # inches that one takes
COLOURS = {
    "gateway": "#969696",
    "dispatcher": "#6e6e6e",
    "decode": "#3ca0c8",
    "infer": "#e67846",
    "postprocess": "#5aaa78",
}


def draw(trace: dict[str, Any], begin: float, length: float) -> Figure:
    """The picture of `length` milliseconds from `begin`: a lane per thread, and the way of the slowest job."""
    events = trace["traceEvents"]
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    lanes = {track: number for number, track in enumerate(sorted(names))}
    figure = new_figure(WIDTH, MARGIN + LANE * len(lanes))
    axes = figure.subplots()
    axes.set_xlim(0, length)
    axes.set_ylim(len(lanes) - 0.5, -0.5)
    axes.set_yticks(list(lanes.values()), [names[track] for track in lanes])
    axes.xaxis.tick_top()
    axes.xaxis.set_major_formatter("{x:g} ms")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    for event in events:
        if event["ph"] == "X":
            draw_slice(axes, event, lanes[event["tid"]], begin, length)
    draw_job(axes, events, lanes, begin, length)
    return figure


def draw_slice(axes: Axes, event: dict[str, Any], lane: int, begin: float, length: float) -> None:
    """One piece of work, with its name where there is room."""
    left = max(0.0, event["ts"] / 1000 - begin)
    right = min(length, (event["ts"] + event["dur"]) / 1000 - begin)
    if left >= right:
        return
    (bar,) = axes.barh(lane, right - left, SLICE, left, color=COLOURS[event["cat"]])
    if (right - left) / length * WIDTH > CHARACTER * len(event["name"]):
        bar.set_edgecolor("white")  # so that two in a row are seen as two
        axes.text((left + right) / 2, lane, event["name"], color="white", ha="center", va="center", fontsize="small")


def draw_job(axes: Axes, events: list[dict[str, Any]], lanes: dict[int, int], begin: float, length: float) -> None:
    """The way of the one job inside that took longest."""
    ways: dict[int, list[dict[str, Any]]] = {}
    for event in events:
        if event["ph"] in "stf":
            ways.setdefault(event["id"], []).append(event)
    first, last = begin * 1000, (begin + length) * 1000
    inside = [way for way in ways.values() if len(way) >= 5 and first <= way[0]["ts"] and way[-1]["ts"] <= last]
    if inside:
        way = max(inside, key=lambda way: way[-1]["ts"] - way[0]["ts"])
        times = [stop["ts"] / 1000 - begin for stop in way]
        axes.plot(times, [lanes[stop["tid"]] for stop in way], color="#282828", marker="o", markersize=4)


def main() -> None:
    """Read a trace, write a picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--from-ms", type=float, default=200.0, help="where the stretch begins")
    parser.add_argument("--ms", type=float, default=150.0, help="how long it is")
    arguments = parser.parse_args()
    figure = draw(json.loads(arguments.trace.read_text()), arguments.from_ms, arguments.ms)
    figure.savefig(arguments.picture)


if __name__ == "__main__":
    main()
