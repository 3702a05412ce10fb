"""Packed request bodies, gzip (RFC 1952) and deflate (RFC 1950, 1951), refused where anything of them is missing. Pure.

aiohttp unpacks bodies as well, and takes one whose end is cut off for a whole one.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from parallel_infer.errors import BadInput

ENCODINGS = ("", "identity", "gzip", "deflate")
_PIECE = 1 << 18  # bytes unpacked at a time, so that few bytes that stand for many are stopped in time
_GZIP, _ZLIB, _RAW = 31, 15, -15  # zlib's numbers for what stands around the packed data


class Unpacking:
    """Unpacks one body from its pieces."""

    def __init__(self, encoding: str) -> None:
        """`encoding` is "gzip" or "deflate"."""
        self._encoding = encoding
        self._packed = zlib.decompressobj(_GZIP) if encoding == "gzip" else None

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """What a piece stands for, at most `_PIECE` bytes at a time. Raises BadInput where it cannot be unpacked."""
        if self._packed is None:  # some clients send deflate without zlib's two bytes in front
            self._packed = zlib.decompressobj(_ZLIB if piece[0] & 15 == 8 else _RAW)
        more = False
        while piece or more:
            if self._packed.eof:
                raise self._unreadable("bytes follow its end")
            try:
                unpacked = self._packed.decompress(piece, _PIECE)
            except zlib.error as error:
                raise self._unreadable(str(error)) from None
            yield unpacked
            more = len(unpacked) == _PIECE and not self._packed.eof
            piece = self._packed.unconsumed_tail or self._packed.unused_data

    def check_ended(self) -> None:
        """Raises BadInput where the body ended before what is packed did."""
        if self._packed is None or not self._packed.eof:
            raise self._unreadable("its end is missing")

    def _unreadable(self, why: str) -> BadInput:
        return BadInput(f"the body cannot be read as {self._encoding}: {why}")
