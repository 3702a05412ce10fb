"""Where results are published: the address of an MQTT broker and a topic, as one URL."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urlsplit

from parallel_infer.errors import ConfigError
from parallel_infer.redaction import HINT, redacted_address

_PORTS = {"mqtt": 1883, "mqtts": 8883}  # as registered
_FORM = "mqtt://[USER[:PASSWORD]@]HOST[:PORT]/TOPIC, or mqtts:// for TLS"
_LONGEST = 4096  # characters; a topic may be of 65,535 bytes (MQTT 3.1.1, section 1.5.3)


@dataclass(frozen=True)
class Broker:
    """A broker, how to log in there, and the topic; the password is in no text of it."""

    shown: str  # the URL without secrets
    host: str
    port: int
    tls: bool
    topic: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises ConfigError for what is no such URL; its text holds no password."""
        if len(url) > _LONGEST:
            raise ConfigError(f"--publish: the URL has {len(url)} characters; up to {_LONGEST} are taken")
        shown = redacted_address(url)
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ConfigError(f"--publish {shown}: the host or the port is wrong; expected {_FORM}; {HINT}") from None
        if parts.scheme not in _PORTS or not host or port == 0:
            raise ConfigError(f"--publish {shown}: expected {_FORM}")
        if set(url) & set("?#"):
            raise ConfigError(f"--publish {shown}: nothing may follow the topic; {HINT}")
        user, password = (None if text is None else unquote(text) for text in (parts.username, parts.password))
        if not user and password is not None:
            raise ConfigError(f"--publish {shown}: MQTT knows no password without a user; expected {_FORM}")
        topic = unquote(parts.path.removeprefix("/"))
        _check_topic(topic, shown)
        return cls(shown, host, port or _PORTS[parts.scheme], parts.scheme == "mqtts", topic, user or None, password)


def _check_topic(topic: str, shown: str) -> None:
    if not topic:
        raise ConfigError(f"--publish {shown} has no topic; expected {_FORM}")
    if set(topic) & set("+#\0"):
        raise ConfigError(f"--publish {shown}: results go to one topic, so + and # are not for it")
