"""What a source is, by how it is written on the command line."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from urllib.request import url2pathname

from parallel_infer.errors import ConfigError
from parallel_infer.redaction import redacted_address

_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_DEVICE = re.compile(r"(?:/dev/video)?(\d{1,4})")
_REALTIME = "realtime:"
STANDARD_INPUT = "-"
_LONGEST_NAME = 120  # characters; the server takes 128, and a name may get a number behind it


class SourceKind(Enum):
    """Where the frames come from."""

    FILE = "file"  # a recording, every frame as fast as it is taken
    REALTIME = "realtime"  # a recording that plays like a camera: frames that nobody takes in time are lost
    FOLDER = "folder"  # pictures, by name
    CAMERA = "camera"
    NETWORK = "network"  # RTSP, HTTP and whatever else FFmpeg opens
    STDIN = "stdin"  # a recording that is piped in, or pictures one after the other


class SourceState(Enum):
    """How a source is doing. ENDED and FAILED are final."""

    CONNECTING = "connecting"
    LIVE = "live"
    RECONNECTING = "reconnecting"
    ENDED = "ended"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        return self in (SourceState.ENDED, SourceState.FAILED)


@dataclass(frozen=True)
class Source:
    """One source. `name` is what people see; `address` may hold credentials and is never shown."""

    name: str
    kind: SourceKind
    address: str = field(repr=False)

    @property
    def live(self) -> bool:
        """Whether its frames come when they come."""
        return self.kind in (SourceKind.CAMERA, SourceKind.NETWORK, SourceKind.REALTIME)

    @property
    def recurs(self) -> bool:
        """Whether it may come back after it was lost."""
        return self.kind in (SourceKind.CAMERA, SourceKind.NETWORK)

    @classmethod
    def of(cls, text: str) -> Source:
        """A source from its text: a path, a number or /dev/videoN, a URL, realtime:PATH, or - for standard input."""
        if text == STANDARD_INPUT:
            return cls("stdin", SourceKind.STDIN, text)
        name = redacted_address(os.fsencode(text).decode(errors="replace"))[:_LONGEST_NAME]
        if text.startswith(_REALTIME):
            return cls(name, SourceKind.REALTIME, str(Path(text.removeprefix(_REALTIME)).absolute()))
        if _SCHEME.match(text):
            return cls(name, SourceKind.NETWORK, text)
        device = _DEVICE.fullmatch(text)
        if device and not (text.isdigit() and Path(text).exists()):
            return cls(name, SourceKind.CAMERA, device.group(1))
        path = Path(text).absolute()  # absolute, so that no file name can be taken for a protocol
        # os.path, because Path raises where the text is too long for a path
        return cls(name, SourceKind.FOLDER if os.path.isdir(path) else SourceKind.FILE, str(path))  # noqa: PTH112

    @property
    def files(self) -> list[Path]:
        """What is read on this machine: the recording, or all files of the folder."""
        if self.kind in (SourceKind.FILE, SourceKind.REALTIME):
            return [Path(self.address)]
        if self.kind is SourceKind.FOLDER:
            with contextlib.suppress(OSError):
                return list(Path(self.address).iterdir())
        if self.address.lower().startswith("file://"):
            return [Path(url2pathname(self.address[len("file://") :])), Path(self.address[len("file://") :])]
        return []

    def in_real_time(self) -> Source:
        """The same, where it is a recording played like a camera. Raises ConfigError for standard input."""
        if self.kind is SourceKind.STDIN:
            raise ConfigError("standard input is read as fast as it comes; --realtime is for recordings in files")
        return replace(self, kind=SourceKind.REALTIME) if self.kind is SourceKind.FILE else self


def sources_of(given: Iterable[str | Source]) -> list[Source]:
    """Sources with names of their own: the same one given twice gets a number behind its name.

    Raises ConfigError where two of them are standard input.
    """
    found: list[Source] = []
    taken: set[str] = set()
    for source in (Source.of(one) if isinstance(one, str) else one for one in given):
        names = itertools.chain([source.name], (f"{source.name} ({number})" for number in itertools.count(2)))
        name = next(name for name in names if name not in taken)
        taken.add(name)
        found.append(replace(source, name=name))
    if sum(source.kind is SourceKind.STDIN for source in found) > 1:
        raise ConfigError("standard input can be read by one source alone; - is given twice")
    return found
