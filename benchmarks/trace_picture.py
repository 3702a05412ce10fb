"""A picture of a stretch of a trace, for documents; Perfetto shows far more.

parallel-infer trace --seconds 1 -o trace.json
python benchmarks/trace_picture.py trace.json trace.png [--from-ms 200] [--ms 150]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

WIDTH, LANE, LEFT, TOP = 1200, 34, 190, 34  # pixels
INK, PALE, PAPER = (60, 50, 45), (232, 228, 224), (255, 255, 255)  # BGR
COLOURS = {
    "gateway": (150, 150, 150),
    "dispatcher": (110, 110, 110),
    "decode": (200, 160, 60),
    "infer": (70, 120, 230),
    "postprocess": (120, 170, 90),
}


def write(canvas: Any, text: str, x: float, y: float, colour: tuple[int, ...] = INK, size: float = 0.42) -> None:
    """Text whose baseline begins at x, y."""
    cv2.putText(canvas, text, (round(x), round(y)), cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


def draw(trace: dict[str, Any], begin: float, length: float) -> Any:
    """The picture [h, w, 3] of `length` microseconds from `begin`."""
    events = trace["traceEvents"]
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    lanes = {track: TOP + LANE * number for number, track in enumerate(sorted(names))}
    canvas = np.full((TOP + LANE * len(lanes) + 26, WIDTH, 3), PAPER, np.uint8)
    scale = (WIDTH - LEFT - 16) / length
    draw_grid(canvas, length, scale)
    for track, top in lanes.items():
        cv2.line(canvas, (0, top + LANE), (WIDTH, top + LANE), PALE, 1)
        write(canvas, names[track], 10, top + 22)
    for event in events:
        if event["ph"] == "X" and event["ts"] < begin + length and event["ts"] + event["dur"] > begin:
            draw_slice(canvas, event, lanes[event["tid"]], begin, scale)
    draw_job(canvas, events, lanes, begin, length)
    return canvas


def draw_grid(canvas: Any, length: float, scale: float) -> None:
    """A line every so many milliseconds."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500) if length / 1000 / step <= 12)
    for tick in range(0, int(length / 1000), step):
        x = round(LEFT + tick * 1000 * scale)
        cv2.line(canvas, (x, TOP - 6), (x, canvas.shape[0]), PALE, 1)
        write(canvas, f"{tick} ms", x + 3, TOP - 12, size=0.36)


def draw_slice(canvas: Any, event: dict[str, Any], top: int, begin: float, scale: float) -> None:
    """One piece of work, with its name where there is room."""
    left = max(LEFT, round(LEFT + (event["ts"] - begin) * scale))
    right = min(WIDTH - 16, round(LEFT + (event["ts"] + event["dur"] - begin) * scale))
    cv2.rectangle(canvas, (left, top + 5), (max(left, right - 1), top + LANE - 5), COLOURS[event["cat"]], -1)
    if right - left > 9 * len(event["name"]):
        write(canvas, event["name"], left + 4, top + 22, PAPER)


def draw_job(canvas: Any, events: list[dict[str, Any]], lanes: dict[int, int], begin: float, length: float) -> None:
    """The way of the one job inside that took longest."""
    scale = (WIDTH - LEFT - 16) / length
    ways: dict[int, list[dict[str, Any]]] = {}
    for event in events:
        if event["ph"] in "stf":
            ways.setdefault(event["id"], []).append(event)
    inside = [
        way for way in ways.values() if len(way) >= 5 and begin <= way[0]["ts"] and way[-1]["ts"] <= begin + length
    ]
    if inside:
        way = max(inside, key=lambda way: way[-1]["ts"] - way[0]["ts"])
        stops = [(LEFT + (stop["ts"] - begin) * scale, lanes[stop["tid"]] + LANE / 2) for stop in way]
        points = np.array(stops, np.float32).round().astype(np.int32)
        cv2.polylines(canvas, [points], isClosed=False, color=(40, 40, 40), thickness=2, lineType=cv2.LINE_AA)
        for x, y in points.tolist():
            cv2.circle(canvas, (x, y), 4, (40, 40, 40), -1, cv2.LINE_AA)


def main() -> None:
    """Read a trace, write a picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--from-ms", type=float, default=200.0, help="where the stretch begins")
    parser.add_argument("--ms", type=float, default=150.0, help="how long it is")
    arguments = parser.parse_args()
    canvas = draw(json.loads(arguments.trace.read_text()), arguments.from_ms * 1000, arguments.ms * 1000)
    cv2.imwrite(str(arguments.picture), canvas)


if __name__ == "__main__":
    main()
