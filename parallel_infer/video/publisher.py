"""Results sent to an MQTT broker: from a queue of their own, so that no stream ever waits for the broker."""

from __future__ import annotations

import ssl
import threading
from collections import deque
from types import TracebackType
from typing import Any, Self

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from parallel_infer.errors import ServerUnavailable, Unauthorized
from parallel_infer.video.broker import Broker

USUAL_LIMIT = 1000  # messages that wait
_ON_THE_WAY = 20  # messages without an acknowledgement; more would only move the queue into the client library
_KEEPALIVE = 30  # seconds; a connection that is silent for one and a half times as long is given up
_PATIENCE = 10.0  # seconds for the first connection
_FIRST_PAUSE, _LONGEST_PAUSE = 1, 30  # seconds before a lost broker is tried again
_LOGIN_NAMES = ("Bad user name or password", "Not authorized")  # return codes 4 and 5 of MQTT 3.1.1


class Publisher:
    """Sends messages to one topic, each at least once. Connects in a `with`; used by one thread.

    `add` never waits. Where the broker is away or slow, `limit` messages wait, and the oldest of them gives way.
    """

    def __init__(self, broker: Broker, limit: int, farewell: float = 5.0) -> None:
        """`farewell`: seconds that `close` waits for a broker that is there to take what is left."""
        self._broker = broker
        self._limit = limit
        self._farewell = farewell
        self._waiting: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._unacknowledged = 0
        self._connected = self._closed = False
        self._refusal = ""
        self._news: deque[str] = deque(maxlen=100)
        self.published = 0  # acknowledged by the broker
        self.dropped = 0  # gave way to newer ones
        self._client = self._made_client()
        self._pump = threading.Thread(target=self._send_all, name="parallel-infer-publisher", daemon=True)

    @property
    def undelivered(self) -> int:
        """Messages that wait, or that the broker has not acknowledged."""
        return len(self._waiting) + self._unacknowledged

    def __enter__(self) -> Self:
        """Raises ServerUnavailable where the broker is not reached, Unauthorized where it refuses the login."""
        try:
            self._client.connect(self._broker.host, self._broker.port, _KEEPALIVE)
        except (OSError, ValueError) as error:
            raise ServerUnavailable(self._not_reached(_reason(error))) from None
        self._client.loop_start()
        with self._changed:
            self._changed.wait_for(lambda: self._connected or self._refusal, _PATIENCE)
        if not self._connected:
            self._client.loop_stop()
            if self._refusal in _LOGIN_NAMES:
                raise Unauthorized(f"--publish {self._broker.shown}: the broker refuses the login: {self._refusal}")
            raise ServerUnavailable(self._not_reached(self._refusal or f"no answer for {_PATIENCE:g} s"))
        self._pump.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, message: bytes) -> None:
        """Have a message sent; returns at once."""
        with self._changed:
            if len(self._waiting) >= self._limit:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(message)
            self._changed.notify()

    def news(self) -> list[str]:
        """What happened to the connection since this was asked last."""
        return [self._news.popleft() for _ in range(len(self._news))]

    def close(self) -> None:
        """Wait a little for what is left, while the broker is there, and leave."""
        with self._changed:
            self._changed.wait_for(lambda: not self._connected or not self.undelivered, self._farewell)
            self._closed = True
            self._changed.notify_all()
        self._pump.join()
        self._client.disconnect()
        self._client.loop_stop()

    def summary(self) -> str:
        """What became of all messages, in a line."""
        parts = [f"{self.published} results published to {self._broker.shown}"]
        if self.dropped:
            parts.append(f"{self.dropped} dropped, because {self._limit} were waiting (--publish-queue)")
        if self.undelivered:
            parts.append(f"{self.undelivered} not delivered")
        return "; ".join(parts)

    def _made_client(self) -> Any:
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311)
        client.max_inflight_messages_set(_ON_THE_WAY)
        client.reconnect_delay_set(_FIRST_PAUSE, _LONGEST_PAUSE)
        if self._broker.user is not None:
            client.username_pw_set(self._broker.user, self._broker.password)
        if self._broker.tls:
            client.tls_set()
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        return client

    def _send_all(self) -> None:
        """The thread between the queue and the client library, which must not be called while a callback may wait."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._may_send())
                if self._closed:
                    return
                message = self._waiting.popleft()
                self._unacknowledged += 1
            self._client.publish(self._broker.topic, message, qos=1)

    def _may_send(self) -> bool:
        return bool(self._waiting) and self._connected and self._unacknowledged < _ON_THE_WAY

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        with self._changed:
            self._refusal = str(code) if code.is_failure else ""
            if self._refusal:
                self._news.append(f"{self._broker.shown}: the broker refuses the connection: {self._refusal}")
            elif self._pump.is_alive():
                self._news.append(f"{self._broker.shown}: connected again")
            self._connected = not code.is_failure
            self._changed.notify_all()

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        with self._changed:
            if self._connected and not self._closed:
                self._news.append(f"{self._broker.shown}: the connection is lost ({code}); trying again")
            self._connected = False
            self._changed.notify_all()

    def _on_publish(self, _client: Any, _data: Any, _number: Any, _code: Any, _properties: Any) -> None:
        with self._changed:
            self._unacknowledged -= 1
            self.published += 1
            self._changed.notify_all()

    def _not_reached(self, reason: str) -> str:
        return f"--publish {self._broker.shown}: the broker is not reached: {reason}"


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"no TLS with it: {error.reason or error}"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
