"""How large the parts of a message may be, and what is said of those that are larger: the same words on both sides."""

from __future__ import annotations

MAX_HEADER = 65536  # bytes
MAX_NAME = 128  # characters of a model's name
MAX_OPTIONS = 4096  # bytes, encoded
LARGEST_PAYLOAD = 4096 << 20  # bytes; no server can be configured to take more
ALWAYS_READ = 1 << 20  # bytes; a frame that every server reads, if only to refuse it


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
