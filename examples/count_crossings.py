"""Tell each object that crosses a line, as it happens: who comes in, and who goes out.

    pip install 'parallel-infer[track]'
    parallel-infer serve &
    python examples/count_crossings.py street.mp4 --line 0,0.5,1,0.5

A line is X1,Y1,X2,Y2, in pixels or in fractions of the picture; in is from its left to its right.
"""

from __future__ import annotations

import argparse
from collections import Counter

from parallel_infer.tracking import Line, Tracking
from parallel_infer.video import Change, Streams, StreamSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--line", default="0,0.5,1,0.5:line")
    parser.add_argument("--model", default="detector")
    parser.add_argument("--server", default="tcp://127.0.0.1:5555")
    arguments = parser.parse_args()

    settings = StreamSettings(track=Tracking(start=0.25, low=0.1, lines=(Line.parse(arguments.line, 1),)))
    before: dict[str, Counter[str]] = {"in": Counter(), "out": Counter()}
    with Streams([arguments.source], arguments.model, arguments.server, settings=settings) as streams:
        for event in streams:
            if isinstance(event, Change):
                print(f"{event.source}: {event.state.value} {event.message}")
            elif event.counts is not None:
                at = f"frame {event.frame}" if event.position is None else f"{event.position:.2f} s"
                for way, counted in event.counts.lines[0].to_dict().items():
                    for name, number in (Counter(counted) - before[way]).items():
                        print(f"{at}: {number} {name} {way}")
                    before[way] = Counter(counted)


if __name__ == "__main__":
    main()
