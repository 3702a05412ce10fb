"""Several sources side by side, with what the server found: a picture of the grid, written again and again.

    parallel-infer serve &
    python examples/camera_grid.py realtime:street.mp4 rtsp://camera/1 0 --model detector --output grid.jpg

A source that is not live keeps its last picture, and its state is written over it.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from parallel_infer import Answer
from parallel_infer.video import Change, SourceState, Streams, sources_of

Picture = npt.NDArray[np.uint8]
HEIGHT, WIDTH = 360, 640
INTERVAL = 0.2  # seconds between two pictures of the grid


class Grid:
    """One tile per source, in their order."""

    def __init__(self, sources: list[str]) -> None:
        self._columns = math.ceil(math.sqrt(len(sources)))
        rows = math.ceil(len(sources) / self._columns)
        self._picture = np.full((rows * HEIGHT, self._columns * WIDTH, 3), 64, np.uint8)
        self._places = {source: divmod(number, self._columns) for number, source in enumerate(sources)}

    def show(self, source: str, picture: Picture) -> None:
        scale = min(HEIGHT / picture.shape[0], WIDTH / picture.shape[1])
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[:HEIGHT, :WIDTH]
        tile = self._tile(source)
        tile[:] = 64
        tile[: small.shape[0], : small.shape[1]] = small

    def tell(self, source: str, text: str) -> None:
        cv2.putText(self._tile(source), text, (8, HEIGHT - 12), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 255), 2)

    def save(self, path: Path) -> None:
        """In one step, so that nobody ever sees half a picture."""
        fresh = path.with_name(f".{os.getpid()}.part")
        fresh.write_bytes(cv2.imencode(path.suffix, self._picture)[1].tobytes())
        fresh.replace(path)

    def _tile(self, source: str) -> Picture:
        row, column = self._places[source]
        return self._picture[row * HEIGHT : (row + 1) * HEIGHT, column * WIDTH : (column + 1) * WIDTH]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--model", default="detector")
    parser.add_argument("--server", default="tcp://127.0.0.1:5555")
    parser.add_argument("--output", type=Path, default=Path("grid.jpg"))
    arguments = parser.parse_args()
    read = [file for source in sources_of(arguments.sources) for file in source.files]
    if arguments.output.exists() and any(file.exists() and arguments.output.samefile(file) for file in read):
        parser.error(f"{arguments.output} is read as a source; give the grid another name")

    with Streams(arguments.sources, arguments.model, arguments.server) as streams:
        grid = Grid(list(streams.tallies))
        saved = 0.0
        for event in streams:
            if isinstance(event, Change):
                print(f"{event.source}: {event.state.value} {event.message}")
                if event.state is not SourceState.LIVE:
                    grid.tell(event.source, event.state.value)
            elif isinstance(event.answer, Answer) and event.pixels is not None:
                grid.show(event.source, event.answer.draw(event.pixels))
            if time.monotonic() - saved > INTERVAL:
                grid.save(arguments.output)
                saved = time.monotonic()
        grid.save(arguments.output)


if __name__ == "__main__":
    main()
