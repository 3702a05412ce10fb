"""Addresses without what is secret in them: nothing else of an address is ever shown."""

from __future__ import annotations

import re

HIDDEN = "***"
# Up to the last @ of a word, because passwords with a bare / or @ in them are in use though no standard allows them.
_CREDENTIALS = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://)\S*@")
_PARAMETER = re.compile(
    r"([?&;][^=&;\s]*(?:pass|pwd|token|key|secret|auth|sig|cred|user|login)[^=&;\s]*=)[^&;#\s]*", re.IGNORECASE
)


def redacted(text: str) -> str:
    """`text` with user, password and secret parameters of every URL in it replaced by ***."""
    return _PARAMETER.sub(rf"\1{HIDDEN}", _CREDENTIALS.sub(rf"\1{HIDDEN}@", text))
