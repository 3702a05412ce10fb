"""Where `infer --save` puts drawn pictures."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from parallel_infer.errors import BadInput, ConfigError
from parallel_infer.files.outputs import Inputs, check_target, make_folder, write_whole
from parallel_infer.pictures.files import PICTURES, read_picture
from parallel_infer.video.stderr_capture import StderrCapture

if TYPE_CHECKING:
    from parallel_infer import Answer

_WRITTEN = (".jpg", ".jpeg", ".png", ".webp")  # kept; a picture of any other kind is written as PNG
_PLACE = "--save"
NOTHING: Mapping[Path, bytearray] = MappingProxyType({})


class SavedPictures:
    """A file for one drawn picture, or a folder of them.

    In a folder they are named after those they were drawn on; two of the same name get different ones.
    """

    def __init__(
        self, place: Path, files: Sequence[Path], key: str | None = None, piped: Mapping[Path, bytearray] = NOTHING
    ) -> None:
        """Make the folder, unless `place` has the suffix of a picture and is no folder.

        Raises ConfigError where nothing can be written there, or one of `files` would be lost. `piped` has the content
        of those that cannot be read again.
        """
        self._files = files
        self._piped = piped
        in_folder = place.is_dir() or place.suffix.lower() not in PICTURES
        self._targets = [place / name for name in names_for(files)] if in_folder else [_file_for(place, files)]
        self._full = False
        self.unsaved = 0  # pictures that were not written because the disk had failed before
        inputs = Inputs([*files, key])
        for target in self._targets:
            if not in_folder or inputs.at(target) is not None:
                check_target(target, inputs, _PLACE)
        if in_folder:
            make_folder(place, _PLACE)
        for target in self._targets:
            if target.is_dir():
                check_target(target, inputs, _PLACE)

    def save(self, number: int, answer: Answer) -> str | None:
        """Draw and write one picture; says what went wrong, if anything. A disk that fails is told of once."""
        import cv2  # first used here: most calls draw nothing

        if self._full:
            self.unsaved += 1
            return None
        try:
            file = self._files[number]
            with StderrCapture():  # what libraries complain of stands in the server's log already
                frame = read_picture(self._piped.get(file, file))
        except BadInput as error:
            return f"not drawn: {error}"
        target = self._targets[number]
        try:
            good, encoded = cv2.imencode(target.suffix, answer.draw(frame))
            if not good:
                return f"not written to {target}: OpenCV cannot encode it"
            write_whole(target, encoded.tobytes())
        except cv2.error as error:
            return f"not written to {target}: {error.err}"
        except ConfigError as error:
            self._full = True
            return f"{error}; no further pictures are saved"
        return None


def _file_for(place: Path, files: Sequence[Path]) -> Path:
    """The only file there will be. Raises ConfigError where there are more pictures, or none of its kind is written."""
    if len(files) != 1:
        raise ConfigError(
            f"{_PLACE} {place} is the name of one file, and there are {len(files)} pictures; name a folder"
        )
    if place.suffix.lower() not in _WRITTEN:
        raise ConfigError(f"{_PLACE} {place}: expected a name that ends in {', '.join(_WRITTEN)}, or a folder")
    return place


def names_for(files: Iterable[Path]) -> Iterator[str]:
    """A name of its own for each, also where the file system takes capitals and small letters for the same."""
    taken: set[str] = set()
    for file in files:
        suffix = file.suffix.lower() if file.suffix.lower() in _WRITTEN else ".png"
        stems = itertools.chain([file.stem], (f"{file.stem}-{number}" for number in itertools.count(2)))
        name = next(name for stem in stems if (name := f"{stem}{suffix}").casefold() not in taken)
        taken.add(name.casefold())
        yield name
