"""Addresses without what is secret in them: nothing else of an address is ever shown.

Passwords stand in many places: before an @, in a query, in a fragment, or in the path, as recorders want it
(`/user=admin_password=secret_channel=1_stream=0.sdp`). They hold bare @, # and / though no standard allows it. What may
be part of a secret is therefore taken for one: more is hidden than must be, rather than less.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from urllib.parse import unquote

HIDDEN = "***"
HINT = (
    "if the user or the password in its address holds any of @ : / # ? & % or a blank, write them as %40 %3A %2F %23 "
    "%3F %26 %25 %20"
)

_SECRET = re.compile(
    r".*(?:pass|pwd|psw|token|key|secret|auth|sig|cred|user|usr|login|account|session|jwt).*|u|p|pw|un|uid|sid|pin|otp|tk",
    re.IGNORECASE,
)
# A secret ends where one of these names, or another secret's, follows; anything else may still be part of it.
_HARMLESS = re.compile(
    "channels?|chn?|cam|camera|streams?|streamtype|subtype|size|profile|resolution|res|fps|framerate|rate|width|height"
    "|w|h|x|codec|videocodec|quality|compression|id|type|proto|protocol|transport|transportmode|unicast|multicast|tcp"
    "|udp|timeout|starttime|endtime|track|video|audio|format|mode|latency",
    re.IGNORECASE,
)
_BEFORE_NAME = re.compile(r"[&;,:/?#]")  # and _, which may also be part of a name

_SCHEME = r"[a-zA-Z][a-zA-Z0-9+.-]*://"
_AFTER_SCHEME = r"[a-zA-Z0-9+.-]://"  # its last sign alone: a long word may begin a scheme at each sign
# Up to the last @ of a word. Without a scheme, a name and a password before an @ are hidden as well.
_CREDENTIALS = re.compile(rf"({_AFTER_SCHEME})\S*@")
_BARE_CREDENTIALS = re.compile(r"((?:^|(?<=[\s'\"(=<]))(?:realtime:)?)(?!\S*://)[^\s/@:'\"]+:/?\S*@")
_PATH_PAIR = re.compile(rf"({_AFTER_SCHEME}[^\s/]+(?:/[^\s/?#:]*)*/)[^\s/?#:=]+:[^\s/?#=]+(?=[/?#]|\s|$)")

_WORD = 4  # characters from which a piece of a secret is hidden inside of words as well
_PIECES = re.compile(r"[:@/#?&=;,%\s]+")


def redacted(text: str) -> str:
    """`text` with user, password and secret parameters of every address in it replaced by ***."""
    text = _CREDENTIALS.sub(rf"\1{HIDDEN}@", text)
    text = _BARE_CREDENTIALS.sub(rf"\1{HIDDEN}@", text)
    text = _PATH_PAIR.sub(rf"\1{HIDDEN}", text)
    return re.sub(r"\S+", lambda word: _without_parameters(word[0]), text) if "=" in text else text


def redacted_address(address: str) -> str:
    """The same of one address, of which blanks are a part."""
    blank = "\0"
    return redacted(re.sub(r"\s", blank, address)).replace(blank, " ")


def without_secrets(text: str, address: str) -> str:
    """What somebody else says about `address`, without the pieces of its secrets that they took for something else.

    FFmpeg takes the part of a password behind a bare @ for the name of a host, for example, and says that it does not
    know it.
    """
    for piece in sorted(_secrets(address), key=len, reverse=True):
        form = re.escape(piece)
        text = re.sub(form if len(piece) >= _WORD else rf"(?<!\w){form}(?!\w)", HIDDEN, text)
    return redacted(text)


def needs_encoding(address: str) -> bool:
    """Whether an address has signs where users and passwords stand that make it mean something else."""
    scheme = re.match(_SCHEME, address)
    rest = address[scheme.end() :] if scheme else address
    if re.search(r"[@/#?\s]|%(?![0-9A-Fa-f]{2})", rest.rpartition("@")[0]):
        return True
    return any(re.search(r"[#/?\s]", piece) for piece, secret in _parameters(address) if secret)


def _secrets(address: str) -> set[str]:
    """The secrets of an address and their pieces, as they stand there and decoded."""
    found = set(_hidden_parts(address))
    found |= {unquote(part) for part in found}
    found |= {piece for part in found for piece in _PIECES.split(part)}
    return found - {"", HIDDEN}


def _hidden_parts(address: str) -> Iterable[str]:
    scheme = re.match(_SCHEME, address)
    yield (address[scheme.end() :] if scheme else address).rpartition("@")[0]
    yield from (piece for piece, secret in _parameters(address) if secret)
    for match in _PATH_PAIR.finditer(address):
        yield match[0].removeprefix(match[1])


def _without_parameters(word: str) -> str:
    return "".join(HIDDEN if secret else piece for piece, secret in _parameters(word))


def _parameters(word: str) -> Iterator[tuple[str, bool]]:
    """The pieces of a word, each with whether it is a secret value; together they are the word."""
    before, *parts = word.split("=")
    yield before, False
    hidden: list[str] | None = [] if parts and any(map(_is_secret, _names(before))) else None
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if hidden is None:
            yield f"={part}", False
            hidden = [] if not last and any(map(_is_secret, _names(part))) else None
            continue
        name = "" if last else next((name for name in _names(part) if _ends_secret(name)), "")
        hidden.append(part[: len(part) - len(name) - 1] if name else part)
        if name or last:
            yield "=", False
            yield "=".join(hidden), True
            yield part[len(part) - len(name) - 1 :] if name else "", False
            hidden = [] if name and _is_secret(name) else None


def _names(text: str) -> list[str]:
    """What may be the name before the = that follows `text`: what stands behind the last separator."""
    behind = _BEFORE_NAME.split(text)
    found = [behind[-1]] if len(behind) > 1 else []
    head, underscore, tail = behind[-1].rpartition("_")
    return [*found, tail] if underscore and (head or found) else found


def _is_secret(name: str) -> bool:
    return _SECRET.fullmatch(name) is not None


def _ends_secret(name: str) -> bool:
    return _is_secret(name) or _HARMLESS.fullmatch(name) is not None
