"""Readers: where a capture process gets its frames from. Every frame is uint8 [h, w, 3] BGR."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from parallel_infer.errors import BadInput
from parallel_infer.pictures.files import look_into, read_picture
from parallel_infer.redaction import HINT, needs_encoding
from parallel_infer.video.pipe import Order
from parallel_infer.video.sources import SourceKind
from parallel_infer.video.stderr_capture import StderrCapture

Frame = npt.NDArray[np.uint8]
_SHORT = 0.9  # a recording that stops before this part of what its header promises is damaged
_PATIENCE = 0.8  # part of the time after which the parent kills this process: better to say why oneself
_ENDLESS = {SourceKind.CAMERA: "camera", SourceKind.NETWORK: "stream"}
_MOST_FPS = 1000.0  # more is a header's way to say that it does not know


class CannotOpen(Exception):
    """Why a source cannot be opened."""


class Unreadable(Exception):
    """A frame that cannot be decoded; the next one may be."""


class Reader(Protocol):
    """A source that is open."""

    fps: float  # 0: unknown
    frames: int  # 0: unknown or without end

    def grab(self) -> bool:
        """Go to the next frame, waiting for it; False when there is none."""
        ...

    def shape(self) -> tuple[int, int] | None:
        """Height and width the next frame will probably have."""
        ...

    def position(self) -> float | None:
        """Seconds from the start of a recording to the frame gone to; None where there is no such time."""
        ...

    def take(self, place: Frame | None) -> Frame:
        """The frame gone to: in `place` where it has that shape, else in an array of its own. Raises Unreadable."""
        ...

    def end(self) -> tuple[bool, str]:
        """After `grab` said False: whether that was all, and what to tell about it."""
        ...


class VideoReader:
    """Whatever OpenCV opens: recordings, cameras and network streams."""

    def __init__(self, capture: cv2.VideoCapture, endless: str, patience: float) -> None:
        self._capture = capture
        self._endless = endless  # what it is called where it has no end; "" for a recording
        self._patience = patience  # seconds after which OpenCV gives a frame up
        self._waited = 0.0  # for the last frame
        self._shape = self._announced()
        fps = capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps <= _MOST_FPS else 0.0
        frames = 0 if endless == "camera" else capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.frames = int(frames) if 0 < frames < 2**53 else 0
        self._grabbed = 0

    def grab(self) -> bool:
        started = time.monotonic()
        grabbed = self._capture.grab()
        self._waited = time.monotonic() - started
        self._grabbed += int(grabbed)
        return grabbed

    def shape(self) -> tuple[int, int] | None:
        return self._shape

    def position(self) -> float | None:
        if self._endless and not self.frames:
            return None
        seconds: float = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if self._grabbed > 1 and seconds <= 0:  # a container without times
            return (self._grabbed - 1) / self.fps if self.fps else None
        return max(0.0, seconds)

    def take(self, place: Frame | None) -> Frame:
        ok, frame = self._capture.retrieve() if place is None else self._capture.retrieve(place)
        if not ok or frame is None or not frame.size:
            raise Unreadable("OpenCV cannot decode this frame")
        if frame.dtype != np.uint8:
            raise Unreadable(f"the source delivers {frame.dtype} pixels; 8 bits per channel are needed")
        if frame.ndim == 2 or frame.shape[2] == 1:
            frame = cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)
        self._shape = frame.shape[:2]
        return frame  # type: ignore[return-value]

    def end(self) -> tuple[bool, str]:
        if not self._grabbed:
            return False, "no frame could be decoded"
        if self.frames and self._grabbed < self.frames * _SHORT:
            return False, f"stopped after {self._grabbed} of {self.frames} frames; the rest is missing or damaged"
        if self.frames or not self._endless:
            return True, f"all {self._grabbed} frames read"
        if self._waited > self._patience / 2:
            return False, f"the {self._endless} delivered nothing for {self._waited:.1f} s"
        return False, f"the {self._endless} delivers no more frames"

    def _announced(self) -> tuple[int, int] | None:
        height, width = (int(self._capture.get(p)) for p in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
        return (height, width) if height > 0 and width > 0 else None


class FolderReader:
    """The pictures of a folder, by name."""

    fps = 0.0

    def __init__(self, folder: Path) -> None:
        found = look_into(folder)
        self._files, self._left_out = found.pictures, found.left_out
        self._at = -1
        self.frames = len(self._files)
        if not self._files:
            raise CannotOpen("the folder holds no pictures" + (f", but {self._left_out}" * bool(self._left_out)))

    def grab(self) -> bool:
        self._at += 1
        return self._at < len(self._files)

    def shape(self) -> tuple[int, int] | None:
        return None

    def position(self) -> float | None:
        return None

    def take(self, place: Frame | None) -> Frame:
        file = self._files[self._at]
        try:
            return read_picture(file)
        except BadInput as error:
            raise Unreadable(f"{file.name} cannot be decoded as a picture: {error}") from error

    def end(self) -> tuple[bool, str]:
        return True, f"all {self.frames} pictures read" + (f"; left out: {self._left_out}" * bool(self._left_out))


def open_reader(order: Order) -> Reader:
    """Open the source of an order. Raises CannotOpen."""
    kind = SourceKind(order.kind)
    if kind is SourceKind.FOLDER:
        return FolderReader(Path(order.address))
    cv2.setNumThreads(1)  # one core per source is enough to decode; the others are for inference
    if kind in (SourceKind.FILE, SourceKind.REALTIME) and not os.access(order.address, os.R_OK):
        raise CannotOpen("no such file" if not Path(order.address).exists() else "the file may not be read")
    if kind is SourceKind.STDIN and os.isatty(0):
        raise CannotOpen("standard input is a terminal: pipe a video into it, or pictures one after the other")
    if kind is SourceKind.CAMERA and not Path(f"/dev/video{order.address}").exists():
        raise CannotOpen("there is no such camera")
    started = time.monotonic()
    with StderrCapture() as errors:
        capture = _capture(kind, order)
        if not capture.isOpened():
            waited = time.monotonic() - started
            reason = errors.last() or (f"nothing came for {waited:.1f} s" if waited > order.opening / 2 else "")
            raise CannotOpen("it cannot be opened as a video" + (f": {reason}" if reason else "") + _hint(kind, order))
        return VideoReader(capture, _ENDLESS.get(kind, ""), _PATIENCE * order.silence)


def _hint(kind: SourceKind, order: Order) -> str:
    return f"; {HINT}" if kind is SourceKind.NETWORK and needs_encoding(order.address) else ""


def _openable(address: str) -> str:
    """An address that OpenCV takes: a path that is not UTF-8 becomes that of a descriptor, which stays open."""
    try:
        address.encode()
    except UnicodeEncodeError:
        return f"/proc/self/fd/{os.open(address, os.O_RDONLY)}"
    return address


def _capture(kind: SourceKind, order: Order) -> cv2.VideoCapture:
    if kind is SourceKind.CAMERA:
        capture = cv2.VideoCapture(int(order.address), cv2.CAP_V4L2)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        return capture
    if kind is SourceKind.STDIN:
        # A file is opened anew, because FFmpeg goes to and fro in it; pipes and sockets are read as they come.
        address = "/dev/stdin" if stat.S_ISREG(os.fstat(0).st_mode) else "pipe:0"
        return cv2.VideoCapture(address, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    timeouts = [
        *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(_PATIENCE * order.opening * 1000)),
        *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(_PATIENCE * order.silence * 1000)),
    ]
    # Decoding with several threads would hold back as many frames.
    threads = [] if kind is SourceKind.FILE else [cv2.CAP_PROP_N_THREADS, 1]
    return cv2.VideoCapture(_openable(order.address), cv2.CAP_FFMPEG, [*timeouts, *threads])
