"""Encoded pictures from files, pipes and file objects, no more of them than may be sent."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parallel_infer.errors import BadInput
from parallel_infer.limits import payload_too_large

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://|data:", re.IGNORECASE)
_PIECE = 1 << 20  # bytes


def check_size(size: int, most: int) -> None:
    """Raises BadInput for a payload of more bytes than may be sent."""
    if size > most:
        raise BadInput(payload_too_large(size, most))


def is_open_ended(picture: object) -> bool:
    """Whether nothing tells how much there is to read: a pipe, a device, an object with `read`."""
    if isinstance(picture, (str, os.PathLike)):
        try:
            return not stat.S_ISREG(Path(picture).stat().st_mode)
        except (OSError, ValueError):  # said when it is read
            return False
    return hasattr(picture, "read")


def read_path(path: str | os.PathLike[str], most: int) -> bytes:
    """The content of a file. Raises BadInput where it cannot be read, or is larger than `most` bytes."""
    name = os.fspath(path)
    if isinstance(path, str) and _ADDRESS.match(path):
        raise BadInput(
            f"{name[:100]!r} is an address, and the client fetches nothing: send the bytes that it leads to, for "
            "example urllib.request.urlopen(address).read()"
        )
    if not name:
        raise BadInput("the path is empty: it leads to no picture")
    try:
        with Path(path).open("rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode):
                check_size(status.st_size, most)
            content = file.read() if stat.S_ISREG(status.st_mode) else _in_pieces(file.read, most)
    except IsADirectoryError:
        raise BadInput(f"{name!r} is a folder; send its pictures one by one, or with infer_many") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{name[:200]!r} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not content:
        raise BadInput(f"{name[:200]!r} is empty: it holds no picture")
    return content


def read_file(file: Any, most: int) -> bytes:
    """What is left to read of a file object; all of it where it was just written and not rewound."""
    try:
        found = _in_pieces(file.read, most)
        if not found and hasattr(file, "seekable") and file.seekable() and file.tell():
            file.seek(0)
            found = _in_pieces(file.read, most)
    except (OSError, ValueError, TypeError) as error:  # the last of a `read` that takes no size
        raise BadInput(f"The file cannot be read: {error}") from error
    if not found:
        raise BadInput("The file is empty, or was read to its end: it holds no picture")
    return found


def _in_pieces(read: Callable[[int], bytes], most: int) -> bytes:
    """Everything there is, unless it is more than `most` bytes: pipes and devices do not tell how much they have."""
    content = bytearray()
    while piece := read(_PIECE):
        if not isinstance(piece, (bytes, bytearray)):
            raise BadInput(f"The file gives {type(piece).__name__}, not bytes; open it in binary mode, 'rb'")
        content += piece
        check_size(len(content), most)
    return bytes(content)
