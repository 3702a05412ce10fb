"""A source that is slower than its pictures' timeout: what was answered, refused or lost meanwhile is seen to."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from parallel_infer import AsyncClient, Client
from parallel_infer.errors import BadInput
from tests.client.client_calls import payload_of

TIMEOUT = 0.3  # seconds


def passed(seconds):
    """Waits as a slow source does; there is nothing else to wait for."""
    threading.Event().wait(seconds)


def test_answers_that_came_in_time_count(server):
    def pictures():
        for number in range(4):
            yield b"%d" % number
            passed(TIMEOUT)

    with Client(server.address) as client:
        answers = client.infer_many("echo", pictures(), timeout=TIMEOUT)
    assert [payload_of(answer) for answer in answers] == [b"0", b"1", b"2", b"3"]


def test_what_was_refused_is_tried_again_while_the_source_waits(server):
    """The second picture is refused; there is room again long before the third one comes."""
    server.room = 1
    came = []

    def pictures():
        yield b"a"
        yield b"b"
        until = time.monotonic() + 10
        while server.count < 3 and time.monotonic() < until:
            passed(0.01)
        came.append(server.count)
        yield b"c"

    with Client(server.address) as client:
        answers = client.infer_many("full", pictures(), timeout=20)
    assert [payload_of(answer) for answer in answers] == [b"a", b"b", b"c"]
    assert came[0] >= 3


def test_what_was_lost_is_sent_again_while_the_source_waits(server):
    def pictures():
        yield b"a"
        server.next()
        server.restart()
        server.next()  # the same picture, over the new connection
        server.release()
        yield b"b"
        server.next()
        server.release()

    with Client(server.address) as client:
        answers = client.infer_many("held", pictures(), timeout=20)
    assert [payload_of(answer) for answer in answers] == [b"a", b"b"]


def test_an_asynchronous_source_may_be_slow_too(server):
    server.room = 1

    async def pictures():
        yield b"a"
        yield b"b"
        async with asyncio.timeout(10):
            while server.count < 3:  # noqa: ASYNC110 - the server is a thread
                await asyncio.sleep(0.01)
        yield b"c"

    async def many():
        async with AsyncClient(server.address) as client:
            return await client.infer_many("full", pictures(), timeout=20)

    assert [payload_of(answer) for answer in asyncio.run(many())] == [b"a", b"b", b"c"]


def test_an_event_loop_that_was_blocked(server):
    """Nothing looks at the connection for longer than the timeout; the answers are there all the same."""

    async def ask():
        async with AsyncClient(server.address) as client:
            await client.ready()
            tasks = [client.submit("echo", b"%d" % number, timeout=TIMEOUT) for number in range(4)]
            await asyncio.sleep(0)
            passed(3 * TIMEOUT)
            return await asyncio.gather(*tasks)

    assert [payload_of(answer) for answer in asyncio.run(ask())] == [b"0", b"1", b"2", b"3"]


def test_an_error_of_the_source_ends_the_call(server):
    def pictures():
        yield b"a"
        raise OSError("the disk is gone")

    with Client(server.address) as client:
        with pytest.raises(OSError, match="disk"):
            client.infer_many("silent", pictures())
        assert payload_of(client.infer("echo", b"x")) == b"x"


def test_a_second_event_loop_is_refused_by_name(server):
    client = AsyncClient(server.address)
    assert payload_of(asyncio.run(client.infer("echo", b"x"))) == b"x"
    for call in (lambda: client.infer("echo", b"x"), client.ready, lambda: client.infer_many("echo", [b"x"])):
        with pytest.raises(BadInput, match="one AsyncClient"):
            asyncio.run(call())
    asyncio.run(client.close())
