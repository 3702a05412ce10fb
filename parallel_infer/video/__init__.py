"""Live video: cameras, network streams, recordings and folders of pictures, frame by frame through a server.

The names are imported at first use, so that a capture process does not pay for the client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from parallel_infer.pictures.opencv_limit import set_pixel_limit

if TYPE_CHECKING:
    from parallel_infer.video.counts import Tally
    from parallel_infer.video.events import Change, Result
    from parallel_infer.video.settings import Drop, StreamSettings
    from parallel_infer.video.sources import Source, SourceKind, SourceState, sources_of
    from parallel_infer.video.streams import Streams

set_pixel_limit()  # here, because OpenCV reads it when it is imported, and everything in this package does

__all__ = [
    "Change",
    "Drop",
    "Result",
    "Source",
    "SourceKind",
    "SourceState",
    "StreamSettings",
    "Streams",
    "Tally",
    "sources_of",
]

_HOMES = {
    "Change": "events",
    "Drop": "settings",
    "Result": "events",
    "Source": "sources",
    "SourceKind": "sources",
    "SourceState": "sources",
    "StreamSettings": "settings",
    "Streams": "streams",
    "Tally": "counts",
    "sources_of": "sources",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found
