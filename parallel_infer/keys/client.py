"""The keys with which a client and a server know each other (CURVE), and the file they lie in.

A client key file has three lines `name = value`: `public` and `secret` of the client and `server`, the public key of
the server; values are keys in Z85, 40 characters. Lines that begin with `#` are comments.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from parallel_infer.files.text import read_text
from parallel_infer.keys.parse import KEY_LENGTH, is_key, parse_lines

_NAMES = ("public", "secret", "server")


class HasKeys(Protocol):
    """Anything with the three keys in Z85."""

    @property
    def public(self) -> str: ...
    @property
    def secret(self) -> str: ...
    @property
    def server(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Key:
    """A client's key pair and the public key of its server, in Z85."""

    public: str
    secret: str = field(repr=False)
    server: str

    @classmethod
    def of(cls, key: str | os.PathLike[str] | HasKeys) -> Key:
        """The keys of a file, or of an object that has them. Raises ValueError that says what is wrong."""
        if not isinstance(key, (str, os.PathLike)):
            if not all(isinstance(getattr(key, name, None), str) for name in _NAMES):
                found = type(key).__name__
                raise ValueError(f"The key is a {found}: neither the path of a key file nor an object with {_NAMES}")
            return cls(_checked("public", key.public), _checked("secret", key.secret), _checked("server", key.server))
        try:
            text = read_text(Path(key))
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            raise ValueError(f"The key file {os.fspath(key)!r} cannot be read: {reason}") from error
        try:
            values = parse_lines(text, _NAMES, ("token",))
        except ValueError as error:
            raise ValueError(f"The key file {os.fspath(key)!r} {error}") from None
        return cls(*(_checked(name, values[name]) for name in _NAMES))


def _checked(name: str, value: str) -> str:
    if not is_key(value):  # the value is not shown: it may be a secret
        raise ValueError(f"The {name!r} key is not a Z85 key: {KEY_LENGTH} characters are needed, it has {len(value)}")
    return value
