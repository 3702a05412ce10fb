"""What a load consists of: the shipped pictures as 1280x720 JPEG, the pictures of a folder, their frames, or random
tensors.

Pictures lie in a folder, so that every process of the load generator reads them by itself.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from parallel_infer.client.payload import Payload, payload_of
from parallel_infer.errors import ConfigError
from parallel_infer.model_files.location import ZOO
from parallel_infer.pictures.files import SUFFIXES as BY_FORMAT
from parallel_infer.pictures.files import Folder, look_into

SUFFIXES = frozenset(suffix for form in ("jpeg", "png", "webp") for suffix in BY_FORMAT[form])
SIZE = (1280, 720)  # width and height of the shipped pictures in a load
QUALITY = 90  # of JPEG, 0 to 100
_MOST_BYTES = 512 << 20  # of pictures that a load process keeps in memory
_SEED = 5


class Source(Struct, frozen=True):
    """Where the payloads of a load come from: pictures of a folder, or tensors `(name, dtype, shape)` of noise.

    With `frame`, a width and a height, pictures are sent as decoded frames of that size.
    """

    folder: str = ""
    frame: tuple[int, int] | None = None
    tensors: tuple[tuple[str, str, tuple[int, ...]], ...] = ()

    def payloads(self) -> list[Payload]:
        """Ready to be sent. Raises ConfigError where there is nothing to send."""
        if self.tensors:
            return [payload_of(_noise(self.tensors))]
        pictures = read_pictures(Path(self.folder))
        return [payload_of(picture if self.frame is None else _frame(picture, self.frame)) for picture in pictures]


def read_pictures(folder: Path) -> list[bytes]:
    """The picture files of a folder, by name, up to 512 MB. Raises ConfigError where there are none."""
    found: list[bytes] = []
    size = 0
    for path in picture_files(folder):
        payload = path.read_bytes()
        size += len(payload)
        if found and size > _MOST_BYTES:
            break
        found.append(payload)
    if not found:
        raise ConfigError(f"{folder} holds no pictures ({', '.join(sorted(SUFFIXES))})")
    return found


def picture_files(folder: Path) -> list[Path]:
    """The picture files of a folder, told by their suffix, in the order of their names."""
    return picture_folder(folder).pictures


def picture_folder(folder: Path) -> Folder:
    """What a folder holds; pictures are those that a server accepts unless told otherwise. Raises ConfigError."""
    try:
        return look_into(folder, SUFFIXES)
    except OSError as error:
        raise ConfigError(f"the pictures in {folder} cannot be read: {error.strerror}") from error


@contextlib.contextmanager
def shipped_pictures() -> Iterator[Path]:
    """A folder, gone afterwards, of the shipped pictures as JPEG files of 1280x720."""
    import cv2  # here: whoever brings pictures need not wait for OpenCV

    with tempfile.TemporaryDirectory(prefix="parallel-infer-bench-") as name:
        for path in picture_files(ZOO / "pictures"):
            frame = cv2.imread(str(path))
            assert frame is not None, "the shipped pictures can be read"
            frame = cv2.resize(frame, SIZE, interpolation=cv2.INTER_AREA)
            cv2.imwrite(f"{name}/{path.stem}.jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        yield Path(name)


def _frame(picture: bytes, size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """The picture, decoded and resized. Raises ConfigError where OpenCV cannot decode it."""
    import cv2

    frame = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    if frame is None:
        raise ConfigError("one of the pictures is damaged, so it gives no frame")
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def _noise(tensors: tuple[tuple[str, str, tuple[int, ...]], ...]) -> dict[str, np.ndarray[Any, Any]]:
    random = np.random.default_rng(_SEED)
    arrays = {}
    for name, dtype, shape in tensors:
        if np.dtype(dtype).kind == "f":
            arrays[name] = random.random(shape, np.float32).astype(dtype)
        else:
            arrays[name] = random.integers(0, 2, shape).astype(dtype)  # 0 and 1: also indices stay in range
    return arrays
