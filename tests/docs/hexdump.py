"""Bytes as docs/protocol.md prints them, and back."""

from __future__ import annotations

_WIDTH = 16  # bytes a line


def dump(content: bytes) -> str:
    """Lines of offset, bytes and their ASCII letters."""
    return "\n".join(_line(start, content[start : start + _WIDTH]) for start in range(0, len(content), _WIDTH))


def undump(text: str) -> bytes:
    """The bytes of a dump. Raises ValueError where the offsets or the letters do not fit the bytes."""
    content = b"".join(bytes.fromhex(line[6 : 6 + 3 * _WIDTH]) for line in text.splitlines())
    if dump(content) != text:
        raise ValueError("the offsets or the letters of the dump do not fit its bytes")
    return content


def _line(start: int, part: bytes) -> str:
    letters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
    return f"{start:04x}  {part.hex(' '):<{3 * _WIDTH}} {letters}"
