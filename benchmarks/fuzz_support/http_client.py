"""A client that sends any bytes to an HTTP server and reads what comes back."""

from __future__ import annotations

import asyncio
import json

PATIENCE = 120.0  # seconds for an answer; the machine may be busy


class Conversation:
    """One connection, opened again where the server or doubt ended it."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, data: bytes, whole: bool) -> tuple[str, bytes]:
        """Status and body of the answer; ("closed", b"") where the connection is ended without one.

        After what is not `whole` the end of what is sent is shown by the end of the connection.
        """
        async with asyncio.timeout(PATIENCE):
            if self._writer is None or self._reader is None or self._reader.at_eof():
                self.close()
                self._reader, self._writer = await asyncio.open_connection(*self._address)
            try:
                self._writer.write(data)
                await self._writer.drain()
                if not whole:
                    return await self._last()
                return await self._answer(self._reader)
            except (ConnectionError, asyncio.IncompleteReadError):
                self.close()
                return "closed", b""

    async def _last(self) -> tuple[str, bytes]:
        """What is answered to something of which nobody knows where it ends."""
        assert self._reader is not None
        assert self._writer is not None
        try:
            async with asyncio.timeout(0.02):
                return await self._answer(self._reader)
        except TimeoutError:
            return "closed", b""  # it waits for more, which does not come
        finally:
            self.close()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[str, bytes]:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 100"):
            head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("connection") == "close" or lines[0].startswith("HTTP/1.0"):
            self.close()
        return lines[0].split(" ")[1], body

    def close(self) -> None:
        """End the connection."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


def check_answer(status: str, body: bytes) -> None:
    """Raises AssertionError where an answer is none that the server may give to something spoilt."""
    if status == "closed":
        return
    assert status.isdigit(), status
    assert status not in ("500", "502"), (status, body[:500])
    if int(status) >= 400 and body:
        error = json.loads(body)
        assert error["error"] == error["message"] != "", body
        assert error["code"] not in ("", "INTERNAL"), body
