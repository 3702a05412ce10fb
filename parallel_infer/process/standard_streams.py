"""Standard output and standard error where the locale has no such letters, the disk is full or nobody listens."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import select
import sys
from typing import Any

STANDARD_OUTPUT = "standard output"
_ERRORS = "parallel-infer"
_ESCAPED = range(0xDC80, 0xDD00)  # what bytes of file names that are no UTF-8 become in Python (PEP 383)


def prepare_streams() -> None:
    r"""Let no letter keep a line from being written, and every error name what could not be written to.

    What a stream's encoding lacks is written as \xNN or \uNNNN. Bytes of file names that are no text go out as they
    are, so that a name in a list still names the file.
    """
    codecs.register_error(_ERRORS, _written_anyway)
    _replace_closed()
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout is sys.__stdout__:
        sys.stdout = _through(_Output(sys.stdout.fileno(), "w", closefd=False), sys.stdout)
    if isinstance(sys.stderr, io.TextIOWrapper) and sys.stderr is sys.__stderr__:
        sys.stderr = _through(_ErrorOutput(sys.stderr.fileno(), "w", closefd=False), sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


def _replace_closed() -> None:
    """Put what leads nowhere in the place of streams that were closed before we began.

    Else the next file or socket would get their numbers, and libraries would write their complaints into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def use_utf8() -> None:
    """Start this program again with UTF-8 for names and texts, where Python took the locale's other encoding.

    Names of files, of models and on the wire are UTF-8 everywhere else; LC_ALL=C with PYTHONUTF8=0 is ASCII alone.
    """
    if sys.getfilesystemencoding().lower() == "utf-8" or sys.flags.utf8_mode or not sys.executable:
        return
    environment = {**os.environ, "PYTHONUTF8": "1"}  # for the processes that we start
    with contextlib.suppress(OSError):
        os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], environment)  # noqa: S606


def silence_stdout() -> None:
    """Send what is still to come, and what waits in buffers, nowhere: it could not be written.

    Python would fail once more at its end and spoil the exit code.
    """
    try:
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.__stdout__.fileno() if sys.__stdout__ is not None else 1)
        os.close(descriptor)
    except (OSError, ValueError):
        sys.stdout = None  # as Python has it where there is none


class _Output(io.FileIO):
    """Errors name it, as those of files do, and where it does not block it is waited for."""

    def write(self, data: Any, /) -> int:
        try:
            while (count := super().write(data)) is None:
                select.select((), (self,), ())
        except OSError as error:
            raise OSError(error.errno, error.strerror, STANDARD_OUTPUT) from None
        return count


class _ErrorOutput(_Output):
    """Where even an error cannot be told, the exit code still is."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _through(raw: _Output, stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """The same text stream with another end."""
    unbuffered = isinstance(stream.buffer, io.RawIOBase)
    return io.TextIOWrapper(
        raw if unbuffered else io.BufferedWriter(raw),  # as Python itself does with -u
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _written_anyway(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter = error.object[error.start]
    if ord(letter) in _ESCAPED:
        return bytes([ord(letter) - 0xDC00]), error.start + 1
    return codecs.backslashreplace_errors(
        UnicodeEncodeError(error.encoding, error.object, error.start, error.start + 1, error.reason)
    )
