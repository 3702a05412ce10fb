"""Live video: cameras, network streams, recordings and folders of pictures, frame by frame through a server."""

from __future__ import annotations

from parallel_infer.video.feed import Change, Result
from parallel_infer.video.settings import Drop, StreamSettings
from parallel_infer.video.sources import Source, SourceKind, SourceState, sources_of
from parallel_infer.video.streams import Streams
from parallel_infer.video.tally import Tally

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
