"""Text files as editors of other systems write them."""

from __future__ import annotations

import codecs
from pathlib import Path

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(file: Path) -> str:
    """A file's text: UTF-8, or whatever its byte order mark says. Raises OSError, or ValueError for any other text."""
    content = file.read_bytes()
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not text in UTF-8: byte {error.start} is 0x{content[error.start]:02x}") from None
    if "\0" in text:
        raise ValueError("it is not text in UTF-8; save it as UTF-8")
    return text
