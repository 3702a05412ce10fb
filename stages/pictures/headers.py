"""What the first bytes of a picture say: its format and its size, read before any decoder sees them.

A few hundred bytes can ask a decoder for gigabytes, so sizes are parsed here, in bounded time, and refused early.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from parallel_infer.errors import BadInput
from stages.pictures import avif, containers, foreign, gif, jp2, jpeg

_MOST_CHUNKS = 100_000
_START = 512  # bytes that tell a format

Format = Literal["jpeg", "png", "webp", "bmp", "tiff", "gif", "avif", "jp2"]


class Size(NamedTuple):
    """Pixels as stored, before any orientation is applied."""

    width: int
    height: int


class Kind(NamedTuple):
    """A format: its name in a text, whether a payload that starts so is of it, and where its size stands.

    `matches` sees the first 512 bytes. `size` returns width and height from the whole payload;
    struct.error, IndexError or ValueError mean that the header is broken.
    """

    title: str
    matches: Callable[[bytes], bool]
    size: Callable[[memoryview], tuple[int, int]]


def format_of(payload: memoryview, accepted: Sequence[Format]) -> Format:
    """The format by magic bytes. Raises BadInput for anything that is not one of the `accepted`."""
    start = bytes(payload[:_START])
    found = next((name for name, kind in KINDS.items() if kind.matches(start)), None)
    if found is not None and found in accepted:
        return found
    expected = f"expected {_listed([KINDS[name].title for name in accepted])}"
    if found is not None:
        raise BadInput(f"{KINDS[found].title} pictures are not accepted; {expected} (option formats)")
    if not start:
        raise BadInput(f"the payload is empty (0 bytes); {expected}")
    raise BadInput(f"{foreign.explain(start)}; {expected}")


def size_of(payload: memoryview, found: Format) -> Size:
    """The size that a picture of the format `found` declares. Raises BadInput where its header is broken."""
    title = KINDS[found].title
    try:
        size = Size(*KINDS[found].size(payload))
    except (struct.error, IndexError, ValueError):
        raise BadInput(f"the {title} picture is truncated or corrupted") from None
    if size.width < 1 or size.height < 1:
        raise BadInput(f"the {title} picture has no pixels: its header says {size.width}x{size.height}")
    return size


def _listed(words: list[str]) -> str:
    return " or ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def _png(payload: memoryview) -> tuple[int, int]:
    if bytes(payload[12:16]) == b"CgBI":
        raise BadInput("not supported: PNG in the form of Apple's app bundles (CgBI); convert it with pngcrush or sips")
    if bytes(payload[12:16]) != b"IHDR":
        raise ValueError("no IHDR")
    width, height = struct.unpack_from(">II", payload, 16)
    png_end(payload)
    return width, height


def png_end(payload: memoryview) -> int | None:
    """Where a PNG's IEND ought to begin if it is missing, else None.

    Every other chunk must lie within the payload: OpenCV allocates what a chunk says it holds, up to 2 GiB.
    """
    position = 8
    for _ in range(_MOST_CHUNKS):
        if position + 8 > len(payload):
            return position
        length, kind = struct.unpack_from(">I4s", payload, position)
        if kind == b"IEND":
            return position if position + 12 > len(payload) else None
        position += 12 + length
        if position > len(payload):
            raise ValueError("a chunk reaches beyond the payload")
    raise ValueError("too many chunks")


def _webp(payload: memoryview) -> tuple[int, int]:
    """RFC 9649: the canvas of VP8X, or the size within the single VP8L or VP8 chunk."""
    chunk = bytes(payload[12:16])
    if chunk == b"VP8X":
        low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", payload, 24)
        return (high_width << 16 | low_width) + 1, (high_height << 16 | low_height) + 1
    if chunk == b"VP8L" and payload[20] == 0x2F:
        (bits,) = struct.unpack_from("<I", payload, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 " and bytes(payload[23:26]) == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", payload, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError("no picture chunk")


def _bmp(payload: memoryview) -> tuple[int, int]:
    (header,) = struct.unpack_from("<I", payload, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", payload, 18)
    return width, abs(height)  # negative: stored from the top down


KINDS: dict[Format, Kind] = {
    "jpeg": Kind("JPEG", lambda start: start.startswith(b"\xff\xd8\xff"), jpeg.size),
    "png": Kind("PNG", lambda start: start.startswith(b"\x89PNG\r\n\x1a\n"), _png),
    "webp": Kind("WebP", lambda start: start[:4] + start[8:12] == b"RIFFWEBP", _webp),
    "bmp": Kind("BMP", lambda start: start.startswith(b"BM"), _bmp),
    "tiff": Kind("TIFF", lambda start: start.startswith(containers.TIFF), containers.tiff_size),
    "gif": Kind("GIF", lambda start: start.startswith((b"GIF87a", b"GIF89a")), gif.size),
    "avif": Kind("AVIF", avif.is_avif, avif.size),
    "jp2": Kind("JPEG 2000", lambda start: start.startswith((jp2.BOXED, jp2.BARE)), jp2.size),
}
