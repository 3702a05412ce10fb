"""The last guard of every command: what machine, container, locale or disk stand in the way of is one line.

What can be known sooner is said at its place, in better words. A fault of our own keeps its traceback; so does
everything with `--log-level debug` or PARALLEL_INFER_LOG_LEVEL=debug.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence

import click

from parallel_infer.process.standard_streams import STANDARD_OUTPUT, prepare_streams, silence_stdout, use_utf8

_REMEDIES = {
    errno.EMFILE: "allow this process more open files (ulimit -n)",
    errno.ENFILE: "this machine has too many files open",
    errno.EAGAIN: "allow this user more processes (ulimit -u, or pids of the container)",
    errno.ENOMEM: "allow this process more memory",
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room on that disk",
}
_OUT_OF_MEMORY = ("failed to map segment", "cannot allocate memory")  # of an import, by ld.so
_LONGEST = 200  # characters of a text that cannot be written
_NO_THREAD = "can't start new thread"


@contextlib.contextmanager
def surroundings(arguments: Sequence[str] | None = None) -> Iterator[None]:
    """Inside, every error of the surroundings ends the program with one line and exit code 1."""
    os.umask(os.umask(0) & 0o077)  # what we make ourselves we can also read, whatever the umask was
    if arguments is None:
        use_utf8()
    prepare_streams()
    before, threading.excepthook = threading.excepthook, _tell_of_thread
    try:
        yield
    except Exception as error:
        text = described(error)
        if text is None:
            raise
        if _wants_traceback(sys.argv[1:] if arguments is None else arguments):
            traceback.print_exc()
        if getattr(error, "filename", None) == STANDARD_OUTPUT:
            silence_stdout()
        with contextlib.suppress(OSError, ValueError):  # standard error is full or closed as well
            click.echo(f"Error: {text}", err=True)
        raise SystemExit(1) from None
    finally:
        threading.excepthook = before


def _tell_of_thread(failed: threading.ExceptHookArgs) -> None:
    """A thread that ended by an error, of a library most often: who waits for it tells of it as well."""
    if not isinstance(failed.exc_value, Exception) or described(failed.exc_value) is None:
        threading.__excepthook__(failed)


def described(error: Exception) -> str | None:
    """What of the surroundings is in the way, and what to do; None for any other error."""
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, UnicodeEncodeError):
        text = error.object if len(error.object) <= _LONGEST else error.object[:_LONGEST] + "..."
        shown = text.encode("ascii", "backslashreplace").decode()
        return (
            f"{shown!r} cannot be written as {error.encoding}; rename it, or use a locale with UTF-8 (LC_ALL=C.UTF-8)"
        )
    if isinstance(error, UnicodeError):
        return f"{error}; use a locale with UTF-8 (LC_ALL=C.UTF-8)"
    if isinstance(error, MemoryError):
        return "there is not enough memory; allow this process more (ulimit -v, or memory of the container)"
    if isinstance(error, ImportError) and any(words in str(error).lower() for words in _OUT_OF_MEMORY):
        return f"there is not enough memory to load a library: {error}"
    if isinstance(error, RuntimeError) and str(error).startswith(_NO_THREAD):
        return f"no further thread can be started; {_REMEDIES[errno.EAGAIN]}"
    number = getattr(error, "errno", None)  # ZeroMQ's are no OSErrors
    return _with_remedy(os.strerror(number), number) if isinstance(number, int) and number in _REMEDIES else None


def _of_system(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    if isinstance(error, FileNotFoundError) and error.filename is None and not _has_working_folder():
        return "the folder this command was started in is gone; change to another one"
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
    return _with_remedy(": ".join([*names, reason]), error.errno)


def _with_remedy(text: str, number: int | None) -> str:
    remedy = _REMEDIES.get(number or 0)
    return f"{text}; {remedy}" if remedy else text


def _has_working_folder() -> bool:
    try:
        return bool(os.getcwd())  # noqa: PTH109  # Path.cwd is the same and imports more
    except OSError:
        return False


def _wants_traceback(arguments: Sequence[str]) -> bool:
    given = " ".join(arguments).replace("=", " ")
    level = os.environ.get("PARALLEL_INFER_LOG_LEVEL", "")
    return "--log-level debug" in given or level.strip().lower() == "debug"
