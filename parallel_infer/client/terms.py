"""What the server at the other end takes: asked for at each new connection, kept to before anything is sent."""

from __future__ import annotations

import contextlib

import msgspec

from parallel_infer.client.pending import Pending
from parallel_infer.errors import BadInput
from parallel_infer.limits import ALWAYS_READ, LARGEST_PAYLOAD, MAX_HEADER, header_too_large, payload_too_large
from parallel_infer.protocol import Greeting, Hello, Reply, Result

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Greeting).decode


class Terms:
    """The limits of a server, unknown before it has answered `hello`."""

    def __init__(self) -> None:
        self.hello: Hello | None = None  # while it is not answered
        self._most: int | None = None

    @property
    def known(self) -> bool:
        """Whether the server has told its limits."""
        return self._most is not None

    @property
    def most(self) -> int:
        """Bytes of the largest payload; no limit but the protocol's while the server's own is unknown."""
        return LARGEST_PAYLOAD if self._most is None else self._most

    def ask(self, number: int) -> Hello:
        """A new connection: the request to send first."""
        self._most = None
        self.hello = Hello(id=number)
        return self.hello

    def learn(self, reply: Reply) -> bool:
        """Whether this was the answer; a server that does not know the question is taken to have no limit."""
        if self.hello is None or reply.id != self.hello.id:
            return False
        self.hello = None
        self._most = LARGEST_PAYLOAD
        if isinstance(reply, Result):
            with contextlib.suppress(msgspec.MsgspecError):
                self._most = _decode(reply.result).max_payload
        return True

    def open_for(self, size: int) -> bool:
        """Whether it is not known yet if the server takes a payload of `size` bytes."""
        return self._most is None and size > ALWAYS_READ

    def header(self, pending: Pending) -> bytes:
        """A request as it is sent. Raises BadInput where it cannot be, or the server would not take it."""
        try:
            header = _encode(pending.request)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise BadInput(f"the request cannot be sent: {error}") from None
        if self._most is not None and pending.size > self._most:
            raise BadInput(payload_too_large(pending.size, self._most))
        if len(header) > MAX_HEADER:
            raise BadInput(header_too_large(len(header)))
        return header
