"""How the load reaches a server. One class per way in; each asks for one picture and says what became of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from enum import Enum
from typing import Any, NamedTuple, Protocol

from parallel_infer import AsyncClient
from parallel_infer.errors import DeadlineExceeded, InferError, ResourceUnavailable


class Verdict(Enum):
    """What became of a request."""

    ANSWERED = "answered"
    REFUSED = "refused"  # the server had no room
    EXPIRED = "expired"  # the server gave up after its time limit
    FAILED = "failed"


class Reply(NamedTuple):
    """A verdict; with an answer, its parts by name: classes, scores and, of detections, boxes."""

    verdict: Verdict
    answer: dict[str, Any] | None = None


class Connection(Protocol):
    """A server to ask."""

    async def ask(self, picture: int) -> Reply:
        """Send picture number `picture` and wait."""

    async def close(self) -> None: ...


class Ours:
    """Our server, asked by the asyncio client of the package."""

    def __init__(self, address: str, model: str, pictures: Sequence[bytes], timeout: float) -> None:
        self._client = AsyncClient(address, timeout=timeout)
        self._model = model
        self._pictures = pictures

    async def ask(self, picture: int) -> Reply:
        try:
            answer = await self._client.infer(self._model, self._pictures[picture])
        except ResourceUnavailable:
            return Reply(Verdict.REFUSED)
        except DeadlineExceeded:
            return Reply(Verdict.EXPIRED)
        except InferError:
            return Reply(Verdict.FAILED)
        found: dict[str, Any] = dict(answer.arrays)
        if answer.children:
            children = [child for each in answer.children for child in each.values()]
            if any(isinstance(child, InferError) for child in children):
                return Reply(Verdict.FAILED)
            found["children"] = [child.arrays for child in children if not isinstance(child, InferError)]
        return Reply(Verdict.ANSWERED, found)

    async def close(self) -> None:
        await self._client.close()


_STATUS = {
    200: Verdict.ANSWERED,
    429: Verdict.REFUSED,
    503: Verdict.REFUSED,
    408: Verdict.EXPIRED,
    504: Verdict.EXPIRED,
}
_HEADER_LIMIT = 1 << 20

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Response(NamedTuple):
    """What came over HTTP/1.1; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Http:
    """A server that takes JPEG as the body of a POST and answers JSON. Connections are kept and used again.

    Plain sockets: the requests are made once, a reply costs one search for its header and one reading of JSON.
    """

    def __init__(self, port: int, path: str, pictures: Sequence[bytes]) -> None:
        self._port = port
        self._requests = [self._request(path, picture) for picture in pictures]
        self._idle: list[Stream] = []

    async def ask(self, picture: int) -> Reply:
        try:
            response = await self._exchange(self._requests[picture])
            verdict = self._verdict(response)
            return Reply(verdict, self._answer(response) if verdict == Verdict.ANSWERED else None)
        except (OSError, EOFError, ValueError):
            return Reply(Verdict.FAILED)

    async def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()

    def _request(self, path: str, picture: bytes) -> bytes:
        return _post(path, picture, "Content-Type: image/jpeg\r\n")

    def _verdict(self, response: Response) -> Verdict:
        return _STATUS.get(response.status, Verdict.FAILED)

    def _answer(self, response: Response) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(response.body)
        return answer

    async def _exchange(self, request: bytes) -> Response:
        opened = asyncio.open_connection("127.0.0.1", self._port, limit=_HEADER_LIMIT)
        if self._idle:
            opened.close()
            reader, writer = self._idle.pop()
        else:
            reader, writer = await opened
        try:
            writer.write(request)
            response = await _read(reader)
        except BaseException:
            writer.close()
            raise
        if response.headers.get("connection", "").lower() == "close":
            writer.close()
        else:
            self._idle.append((reader, writer))
        return response


class OursOverHttp(Http):
    """Our server's HTTP door: the picture is the body, the answer our result map."""

    def _answer(self, response: Response) -> dict[str, Any]:
        return result_map(json.loads(response.body))


def result_map(body: dict[str, Any]) -> dict[str, Any]:
    """Our result map as the peers answer; boxes as corners. Raises ValueError where an object has no answer."""
    found = body["predictions"]
    answer: dict[str, Any] = {
        "classes": [each["class_id"] for each in found],
        "scores": [each["confidence"] for each in found],
    }
    if "top" not in body:  # centres and sizes of what was found, if anything was
        answer["boxes"] = [
            [
                *(each["x"] - each["width"] / 2, each["y"] - each["height"] / 2),
                *(each["x"] + each["width"] / 2, each["y"] + each["height"] / 2),
            ]
            for each in found
        ]
    if found and "children" in found[0]:
        children = [child for each in found for child in each["children"].values()]
        if failed := [child for child in children if "error" in child]:
            raise ValueError(str(failed[0]["error"]))
        answer["children"] = [result_map(child) for child in children]
    return answer


class TritonHttp(Http):
    """Triton's HTTP with its binary extension: the picture travels as it is, behind a short JSON header."""

    def _request(self, path: str, picture: bytes) -> bytes:
        content = len(picture).to_bytes(4, "little") + picture
        given = {
            "name": "PICTURE",
            "shape": [1, 1],
            "datatype": "BYTES",
            "parameters": {"binary_data_size": len(content)},
        }
        wanted = {"name": "ANSWER", "parameters": {"binary_data": True}}
        header = json.dumps({"inputs": [given], "outputs": [wanted]}).encode()
        return _post(path, header + content, f"Inference-Header-Content-Length: {len(header)}\r\n")

    def _verdict(self, response: Response) -> Verdict:
        """Triton answers 503 both for a full queue and for a request that waited too long."""
        if response.status == 503 and b"timeout" in response.body.lower():
            return Verdict.EXPIRED
        return super()._verdict(response)

    def _answer(self, response: Response) -> dict[str, Any]:
        start = int(response.headers["inference-header-content-length"]) + 4
        answer: dict[str, Any] = json.loads(response.body[start:])
        return answer


def _post(path: str, body: bytes, more: str) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _read(reader: asyncio.StreamReader) -> Response:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    status = int(first.split(" ", 2)[1])
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return Response(status, headers, await _read_chunks(reader))
    return Response(status, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return b"".join(parts)
