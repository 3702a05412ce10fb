"""What FFmpeg writes to standard error while it opens a source: the only place where it says why it cannot."""

from __future__ import annotations

import os
import re
from typing import Self

_ORIGIN = re.compile(r"^\[[^\]]*\]\s*(?:\[[^\]]*\]\s*)?")  # "[rtsp @ 0x55d0]", or OpenCV's own "[ WARN:0@0.594]"
_NOISE = ("VIDEOIO", "Stream ends prematurely")  # of OpenCV's backends; of a stream without a length
_MOST = 65536  # bytes


class StderrCapture:
    """Standard error of this process goes to memory inside the `with`."""

    def __enter__(self) -> Self:
        self._file = os.memfd_create("errors", os.MFD_CLOEXEC)
        self._stderr = os.dup(2)
        os.dup2(self._file, 2)
        return self

    def __exit__(self, *_: object) -> None:
        os.dup2(self._stderr, 2)
        os.close(self._stderr)
        os.close(self._file)

    def last(self) -> str:
        """The last line that is FFmpeg's, without its origin; "" where there is none."""
        text = os.pread(self._file, _MOST, 0).decode(errors="replace")
        lines = [line.strip() for line in text.splitlines()]
        lines = [line for line in lines if line and not any(noise in line for noise in _NOISE)]
        lines = [_ORIGIN.sub("", line) for line in lines if not re.match(r"\[\s*(?:WARN|ERROR|INFO)", line)]
        return lines[-1] if lines else ""
