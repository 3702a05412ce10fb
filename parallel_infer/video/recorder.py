"""Annotated video on disk: one file per source, written by a thread of its own.

A file lasts as long as what was watched: for frames that were dropped the one before is repeated. Where a source
changes its size a further file begins, because a video file has one size.
"""

from __future__ import annotations

import itertools
import queue
import re
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from parallel_infer.answer import Answer
from parallel_infer.errors import ConfigError
from parallel_infer.video.feed import Result

CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
_EXTENSION = re.compile(r"\.(?:mp4|m4v|mov|mkv|avi|webm|mjpe?g|ts)\b", re.IGNORECASE)
USUAL_FPS = 25.0  # of a file whose source does not say
_WAITING = 4  # pictures between the thread that draws and the one that encodes
_LONGEST_GAP = 2.0  # seconds; what is missing beyond that, as after a lost connection, is left out

Picture = npt.NDArray[np.uint8]


def paths_for(target: Path, sources: Iterable[str]) -> dict[str, Path]:
    """A file per source: the target itself for one, the target with a suffix from the source's name for several."""
    sources = list(sources)
    if target.suffix.lower() not in CODECS:
        raise ConfigError(f"--save {target}: the name must end in one of {', '.join(CODECS)}")
    if len(sources) == 1:
        return {sources[0]: target}
    found: dict[str, Path] = {}
    for source in sources:
        end = source.rsplit("://", 1)[-1].rstrip("/").rsplit("/", 1)[-1]
        stem = re.sub(r"[^\w.-]+", "-", _EXTENSION.sub("", end)).strip("-.") or "source"
        names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
        candidates = (target.with_name(f"{target.stem}-{name}{target.suffix}") for name in names)
        found[source] = next(path for path in candidates if path not in found.values())
    return found


class Timing(Protocol):
    """How often a picture is written so that the file keeps time."""

    def count(self, result: Result, fps: float) -> int: ...


class ByTurn:
    """For recordings: by the place of the frame in its source."""

    def __init__(self) -> None:
        self._last: int | None = None

    def count(self, result: Result, fps: float) -> int:
        count = 1 if self._last is None else result.turn - self._last
        self._last = result.turn
        return min(count, round(_LONGEST_GAP * fps))


class ByCapture:
    """For live sources, whose frame rate is often only a guess: by when the frame was captured."""

    def __init__(self) -> None:
        self._start: float | None = None  # of the file, as if it had no gaps
        self._written = 0

    def count(self, result: Result, fps: float) -> int:
        if self._start is None:
            self._start = result.captured
        count = 1 + round((result.captured - self._start) * fps) - self._written
        most = max(1, round(_LONGEST_GAP * fps))
        if count > most:
            self._start += (count - most) / fps
            count = most
        self._written += max(0, count)
        return max(0, count)


class Recorder:
    """Writes one source. `trouble` says why a file is not what was wanted, if so."""

    def __init__(self, path: Path, timing: Timing) -> None:
        self.path = path
        self._timing = timing
        self.trouble = ""
        self.written: list[Path] = []
        self._queue: queue.Queue[tuple[Picture, int, float] | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._write_all, name="parallel-infer-recorder", daemon=True)
        self._thread.start()

    def add(self, result: Result, fps: float) -> None:
        """Draw the answer on its frame and have it written; waits where encoding is slower than the source."""
        if result.pixels is None or not isinstance(result.answer, Answer):
            return
        fps = fps or USUAL_FPS
        count = self._timing.count(result, fps)
        if count:
            self._queue.put((result.answer.draw(result.pixels), count, fps))

    def close(self) -> None:
        """Finish the file."""
        self._queue.put(None)
        self._thread.join()

    def _write_all(self) -> None:
        writer: cv2.VideoWriter | None = None
        last: Picture | None = None
        while (item := self._queue.get()) is not None:
            picture, count, fps = item
            if self.trouble:
                continue
            if writer is None or last is None or last.shape != picture.shape:
                if writer is not None:
                    writer.release()
                writer, last = self._open(picture, fps), picture
            if not self.trouble:
                for repeated in [*[last] * (count - 1), picture]:
                    writer.write(repeated)
                last = picture
        if writer is not None:
            writer.release()

    def _open(self, picture: Picture, fps: float) -> cv2.VideoWriter:
        number = len(self.written) + 1
        path = self.path if number == 1 else self.path.with_name(f"{self.path.stem}.{number}{self.path.suffix}")
        codec = cv2.VideoWriter.fourcc(*CODECS[path.suffix.lower()])
        height, width = picture.shape[:2]
        writer = cv2.VideoWriter(str(path), codec, fps, (width, height))
        if writer.isOpened():
            self.written.append(path)
        else:
            self.trouble = f"{path} cannot be written as a video of {width}x{height} pixels"
        return writer
