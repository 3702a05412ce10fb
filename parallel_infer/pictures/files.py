"""Files of pictures: which of a folder are some, by their suffix, and a file as the frame that a server sees in it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from parallel_infer.errors import BadInput
from parallel_infer.pictures import native_messages
from parallel_infer.pipeline import load_pipeline

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SUFFIXES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".mpo"),
        "png": (".png", ".apng"),
        "webp": (".webp",),
        "bmp": (".bmp", ".dib"),
        "tiff": (".tif", ".tiff", ".btf", ".tf8"),
        "gif": (".gif",),
        "avif": (".avif", ".avifs"),
        "jp2": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    }
)
"""Usual suffixes, in small letters, of every format that a server can be told to accept."""

PICTURES = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
"""All of them."""

_MOST_NAMED = 8  # suffixes in a text


class Folder(NamedTuple):
    """What a folder holds."""

    pictures: list[Path]  # in the order of their names
    left_out: str  # what else there is and why it is left out, for people; "" where there is nothing else


def look_into(folder: Path, suffixes: frozenset[str] = PICTURES) -> Folder:
    """The picture files directly in a folder, told by their suffix, in capitals or not. Raises OSError."""
    pictures: list[Path] = []
    others: Counter[str] = Counter()
    folders = 0
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            folders += 1
        elif path.suffix.lower() in suffixes and path.is_file():
            pictures.append(path)
        else:
            others[path.suffix.lower()] += 1
    return Folder(pictures, "; ".join(filter(None, (_files(others), _folders(folders)))))


def read_picture(source: str | os.PathLike[str] | bytes | bytearray | memoryview) -> npt.NDArray[np.uint8]:
    """A picture, from a file or its bytes, as the frame that a server sees in it: uint8 [h, w, 3] BGR, turned upright.

    Every format is read that a server can be told to accept. Boxes of an answer fit this frame; those that other
    programs read from the file may lie on their side. What libraries say of a damaged file goes to the logger
    `parallel_infer.pictures`, in a program of one thread, and else to standard error. Raises BadInput.
    """
    if not isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview)):
        raise BadInput(f"source={source!r:.50} is neither the path of a picture nor the bytes of one")
    try:
        payload = Path(source).read_bytes() if isinstance(source, (str, os.PathLike)) else bytes(source)
    except (OSError, ValueError) as error:  # the latter where a path has a zero byte
        reason = error.strerror if isinstance(error, OSError) else None
        raise BadInput(f"{source!r:.200} cannot be read: {reason or error}") from error
    pipeline = load_pipeline()
    with native_messages.logged():
        return pipeline.read_picture(payload, tuple(SUFFIXES))


def _files(others: Counter[str]) -> str:
    if not others:
        return ""
    named = [f"{number} {suffix or 'without a suffix'}" for suffix, number in others.most_common(_MOST_NAMED)]
    count = others.total()
    named[-1] += ", ..." * (len(others) > _MOST_NAMED)
    return f"{count} file{'s' * (count > 1)} whose name is not that of a picture that can be read ({', '.join(named)})"


def _folders(count: int) -> str:
    return f"{count} folder{'s' * (count > 1)} inside" if count else ""
