"""Annotated video on disk: one file per source, written by a thread of its own, and there when it is finished.

A file lasts as long as what was watched: for frames that were dropped the one before is repeated. Where a source
changes its size a further file begins, because a video file has one size.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
import queue
import re
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from parallel_infer.answers.answer import Answer
from parallel_infer.errors import ConfigError
from parallel_infer.files.outputs import Inputs, check_target, draft_for, put_in_place
from parallel_infer.video.events import Result
from parallel_infer.video.pacing import USUAL_FPS

CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
_EXTENSION = re.compile(r"\.(?:mp4|m4v|mov|mkv|avi|webm|mjpe?g|ts)\b", re.IGNORECASE)
_WAITING = 4  # pictures between the thread that draws and the one that encodes
_LONGEST_STEM = 100  # bytes that the name of a source adds to the name of a file
_FFMPEG_LOG = "OPENCV_FFMPEG_LOGLEVEL"
_LITTLE = 1 << 20  # bytes; a disk with less is full
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
        stem = re.sub(r"[^\w.-]+", "-", _EXTENSION.sub("", end)).strip("-.")
        stem = stem.encode()[:_LONGEST_STEM].decode(errors="ignore") or "source"
        names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
        candidates = (target.with_name(f"{target.stem}-{name}{target.suffix}") for name in names)
        taken = {path.name.casefold() for path in found.values()}
        found[source] = next(path for path in candidates if path.name.casefold() not in taken)
    return found


class Names:
    """The names of a run's files: none is given twice, and none is that of a file which is read."""

    def __init__(self, paths: Iterable[Path], inputs: Inputs) -> None:
        """`paths` are given already. Raises ConfigError for one that cannot be written."""
        self._taken = set(paths)
        self._inputs = inputs
        self._lock = threading.Lock()
        for path in self._taken:
            check_target(path, inputs, "--save")
            if not os.fsencode(path).decode(errors="replace") == str(path):
                raise ConfigError(f"--save {path}: OpenCV writes to no name that is not UTF-8")

    def further(self, path: Path) -> Path:
        """A name for one more file of the source that writes to `path`."""
        names = (path.with_name(f"{path.stem}.{number}{path.suffix}") for number in itertools.count(2))
        with self._lock:
            found = next(name for name in names if name not in self._taken and self._inputs.at(name) is None)
            self._taken.add(found)
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
    """Writes one source. `error` says why a file is not what was wanted, if so."""

    def __init__(self, path: Path, timing: Timing, names: Names) -> None:
        _keep_quiet()
        self.path = path
        self._names = names
        self._timing = timing
        self.error = ""
        self.written: list[Path] = []
        self._film: Film | None = None
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
            self._queue.put((result.draw(), count, fps))

    def close(self) -> None:
        """Finish the file."""
        self._queue.put(None)
        self._thread.join()

    def _write_all(self) -> None:
        while (item := self._queue.get()) is not None:
            if not self.error:
                self._attempt(self._write, *item)
        if not self.error:
            self._attempt(self._finish)
        if self._film is not None:
            self._film.abandon()

    def _attempt(self, step: Callable[..., None], *arguments: Any) -> None:
        """What fails is told at the end; whoever hands in pictures must not wait for a thread that is gone."""
        try:
            step(*arguments)
        except (CannotWrite, OSError, cv2.error) as error:
            self.error = str(error)

    def _write(self, picture: Picture, count: int, fps: float) -> None:
        if self._film is None or not self._film.takes(picture):
            path = self.path if self._film is None else self._names.further(self.path)
            self._finish()
            self._film = Film(path, picture, fps)
        self._film.write(picture, count)

    def _finish(self) -> None:
        """Let what is written so far be a file."""
        if self._film is not None:
            film, self._film = self._film, None
            self.written.append(film.finish())


class CannotWrite(Exception):
    """Why a video is not what was wanted."""


class Film:
    """One file, beside its place until it is finished."""

    def __init__(self, path: Path, first: Picture, fps: float) -> None:
        """Raises CannotWrite where no such file can be written."""
        self._path = path
        self._draft = draft_for(path)
        self._last = first
        height, width = first.shape[:2]
        codec = cv2.VideoWriter.fourcc(*CODECS[path.suffix.lower()])
        self._writer = cv2.VideoWriter(str(self._draft), codec, fps, (width, height))
        if not self._writer.isOpened():
            self._draft.unlink(missing_ok=True)
            raise CannotWrite(f"{path} cannot be written as a video of {width}x{height} pixels")

    def takes(self, picture: Picture) -> bool:
        """Whether a picture has this video's size."""
        return self._last.shape == picture.shape

    def write(self, picture: Picture, count: int) -> None:
        """Add a picture; of several, all but the last are the one before."""
        for repeated in [*[self._last] * (count - 1), picture]:
            self._writer.write(repeated)
        self._last = picture

    def finish(self) -> Path:
        """Give the file its name. Raises CannotWrite where it cannot be read back, as on a full disk."""
        self._writer.release()
        try:
            if not _is_whole(self._draft):
                raise CannotWrite(f"{self._path} cannot be written: {_reason(self._draft.parent)}")
            put_in_place(self._draft, self._path)
        except OSError as error:
            raise CannotWrite(f"{self._path} cannot be written: {error.strerror}") from None
        finally:
            self._draft.unlink(missing_ok=True)
        return self._path

    def abandon(self) -> None:
        """Leave nothing of it."""
        self._writer.release()
        self._draft.unlink(missing_ok=True)


def _is_whole(file: Path) -> bool:
    """Whether a finished video has its last frame: OpenCV does not tell of frames that it could not write."""
    capture = cv2.VideoCapture(str(file), cv2.CAP_FFMPEG)
    try:
        frames = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        return frames > 0 and capture.set(cv2.CAP_PROP_POS_FRAMES, frames - 1) and capture.grab()
    finally:
        capture.release()


@functools.cache
def _keep_quiet() -> None:
    """Leave it to us to say what is wrong. FFmpeg is told by the environment, which capture processes inherit."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    before = os.environ.get(_FFMPEG_LOG)
    os.environ[_FFMPEG_LOG] = "-8"
    try:
        cv2.VideoCapture(os.devnull, cv2.CAP_FFMPEG).release()  # it is read at the first use
    finally:
        del os.environ[_FFMPEG_LOG]
        if before is not None:
            os.environ[_FFMPEG_LOG] = before


def _reason(folder: Path) -> str:
    status = os.statvfs(folder)
    full = status.f_bavail * status.f_frsize < _LITTLE
    return os.strerror(errno.ENOSPC) if full else "what was written cannot be read back"
