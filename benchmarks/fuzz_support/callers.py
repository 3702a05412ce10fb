"""Clients that send what was spoilt to each door, and check what comes back; many talk at a time."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import cv2
import grpc
import grpc.aio
import numpy as np
import zmq
import zmq.asyncio

from benchmarks.fuzz_support.http_client import PATIENCE, Conversation, check_answer
from benchmarks.fuzz_support.http_requests import HttpRequests
from benchmarks.fuzz_support.other_requests import FrigateFrames, GrpcRequests, ImagezmqFrames
from benchmarks.pictures import read_picture

PICTURE = Path(__file__).resolve().parents[2] / "parallel_infer" / "zoo" / "pictures" / "coffee.png"
AT_ONCE = 16
Outcomes = Counter[str]


def small_picture() -> bytes:
    """A JPEG that is decoded quickly."""
    return cv2.imencode(".jpg", cv2.resize(read_picture(PICTURE), (64, 48)))[1].tobytes()


async def _many(count: int, one: Callable[[], Awaitable[str]]) -> Outcomes:
    """`count` calls of one of several callers, each after the other; the outcomes."""
    outcomes: Outcomes = Counter()
    for _ in range(count):
        outcomes[await one()] += 1
    return outcomes


async def _together(count: int, make: Callable[[int], Callable[[], Awaitable[str]]]) -> Outcomes:
    callers = min(AT_ONCE, count)
    shares = [count // callers + (number < count % callers) for number in range(callers)]
    found: Outcomes = Counter()
    for outcomes in await asyncio.gather(*(_many(share, make(number)) for number, share in enumerate(shares))):
        found += outcomes
    return found


async def http(address: str, count: int, seed: int) -> Outcomes:
    """Answers of the HTTP door at HOST:PORT, by status."""
    host, _, port = address.rpartition(":")
    picture = small_picture()
    conversations: list[Conversation] = []

    def make(number: int) -> Callable[[], Awaitable[str]]:
        requests = HttpRequests(picture, Random(f"{seed} {number}"))
        conversation = Conversation(host, int(port))
        conversations.append(conversation)

        async def one() -> str:
            sent = requests.next()
            status, body = await conversation.ask(*sent)
            try:
                check_answer(status, body)
            except (AssertionError, ValueError) as error:
                raise AssertionError(f"{error!r} after {sent.data[:300]!r} ... {sent.data[-600:]!r}") from None
            return status

        return one

    try:
        return await _together(count, make)
    finally:
        for conversation in conversations:
            conversation.close()


async def grpc_calls(address: str, count: int, seed: int) -> Outcomes:
    """Answers of the gRPC door at HOST:PORT, by status."""
    picture = small_picture()
    async with grpc.aio.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)]) as channel:

        def make(number: int) -> Callable[[], Awaitable[str]]:
            requests = GrpcRequests(picture, Random(f"{seed} {number}"))

            async def one() -> str:
                method, data = requests.next()
                call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                    f"/inference.GRPCInferenceService/{method}"
                )
                name, details = "OK", ""
                try:
                    await call(data, timeout=PATIENCE)
                except grpc.aio.AioRpcError as error:
                    name, details = error.code().name, error.details() or ""
                wrong = ("UNKNOWN", "INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED")
                assert name not in wrong, f"{name}: {details} after {method} {data[:2000]!r}"
                return name

            return one

        return await _together(count, make)


async def frigate(address: str, count: int, seed: int) -> Outcomes:
    """Answers of the door for Frigate, by kind."""
    pixels = cv2.resize(read_picture(PICTURE), (64, 48))
    return await _frames(
        address, count, lambda number: FrigateFrames(pixels.tobytes(), (1, 48, 64, 3), Random(f"{seed} {number}")).next
    )


async def imagezmq(address: str, count: int, seed: int) -> Outcomes:
    """Answers of the door for imagezmq, by kind."""
    picture = small_picture()
    return await _frames(address, count, lambda number: ImagezmqFrames(picture, Random(f"{seed} {number}")).next)


async def _frames(address: str, count: int, generator: Callable[[int], Callable[[], list[bytes]]]) -> Outcomes:
    context = zmq.asyncio.Context()
    connections: list[zmq.asyncio.Socket] = []

    def make(number: int) -> Callable[[], Awaitable[str]]:
        frames_of = generator(number)
        connection = context.socket(zmq.REQ)
        connection.linger = 0
        connection.connect(address)
        connections.append(connection)

        async def one() -> str:
            frames = frames_of()
            await connection.send_multipart(frames)
            async with asyncio.timeout(PATIENCE):
                reply = await connection.recv_multipart()
            header = json.loads(reply[0])
            error = header.get("error", header.get("message", ""))
            assert "INTERNAL" not in (header.get("code"), error.partition(":")[0]), (reply[0], frames[0][:500])
            if "shape" in header:
                assert np.frombuffer(reply[1], header["dtype"]).size == 120
            return str(header.get("code", error.partition(":")[0] if error else "answered"))

        return one

    try:
        return await _together(count, make)
    finally:
        for connection in connections:
            connection.close()
        context.term()
