"""How large the parts of a message may be, and what is said of those that are larger: the same words on both sides."""

from __future__ import annotations

MAX_HEADER = 65536  # bytes
MAX_NAME = 128  # characters of a model's name
MAX_OPTIONS = 4096  # bytes, encoded
LARGEST_PAYLOAD = 4096 << 20  # bytes; no server can be configured to take more
ALWAYS_READ = 1 << 20  # bytes; a frame that every server reads, if only to refuse it
PREVIEW_SIDE = 384  # pixels of the longer side of a live source's picture on the page, where nothing else is said
_PIXELS_READ = 1 << 30  # bytes of pixels that are read at most, to be refused


def largest_frame(max_payload: int, max_pixels: int) -> int:
    """Bytes of the largest frame of a message that a server reads; beyond it a connection is cut.

    Four times the payload, and as much as the pixels of a picture of `max_pixels`: a request that is too large is
    better refused by name, and alone, than cut together with everything else on its connection.
    """
    return max(4 * max_payload, min(3 * max_pixels, _PIXELS_READ)) + (1 << 20)


def preview_bytes(side: int) -> int:
    """Bytes that the JPEG of a picture of `side` pixels may have, if a client draws it: 256 KB of 384 pixels."""
    return side * side * 16 // 9


def payload_too_large(size: int, most: int) -> str:
    """What is said of a payload of more bytes than a server takes."""
    return (
        f"the payload has {size} bytes; the server takes up to {most} (option max_payload_mb). Pictures are smaller "
        "as JPEG or PNG than as pixels"
    )


def header_too_large(size: int) -> str:
    """What is said of a header that is not read."""
    return f"the header has {size} bytes; at most {MAX_HEADER} are read"


def options_too_large(size: int) -> str:
    """What is said of options that are not read."""
    return f"the options have {size} bytes; at most {MAX_OPTIONS} are read"
