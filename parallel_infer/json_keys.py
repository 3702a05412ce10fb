"""Names that stand twice in one object of a JSON text: parsers keep the last, and either might be meant. Pure."""

from __future__ import annotations

import re

import msgspec

# What comes next: a name, or a mark that is an end of an object or the beginning of a text that is long or has escapes.
# Numbers and short texts before it are passed over; the quantifiers are possessive, so that this takes one pass.
_NEXT = re.compile(rb'(?:[^"{}]++|"[^"\\]{0,99}+"(?!\s*+:))*+(?:"([^"\\]{0,99}+)"\s*+:|(["{}]))?')
_END = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_COLON = re.compile(rb"\s*+:")


def twice(json: bytes | bytearray | memoryview) -> str | None:
    """A name that is there twice in one object of a valid JSON text; None where there is none."""
    whole = json.obj if isinstance(json, memoryview) else json
    text = whole if isinstance(whole, bytes) and len(whole) == len(json) else bytes(json)
    objects: list[set[bytes]] = []
    at = 0
    while (found := _NEXT.match(text, at)) is not None:
        at = found.end()
        name, mark = found.groups()
        if mark == b'"':
            end = _end_of(text, at)
            colon = _COLON.match(text, end)
            if colon is None:
                at = end
                continue
            name, at = _unescaped(text[at : end - 1]), colon.end()
        if name is not None:
            if name in objects[-1]:
                return str(name, errors="replace")
            objects[-1].add(name)
        elif mark == b"{":
            objects.append(set())
        elif mark == b"}":
            objects.pop()
        else:
            break
    return None


def _end_of(text: bytes, start: int) -> int:
    """Behind the closing quote of a text that begins at `start`."""
    quote = text.find(b'"', start)
    if text[quote - 1 : quote] != b"\\":
        return quote + 1
    end = _END.match(text, start)
    return end.end() if end else len(text)


def _unescaped(name: bytes) -> bytes:
    return msgspec.json.decode(b'"%b"' % name, type=str).encode(errors="surrogatepass") if b"\\" in name else name
