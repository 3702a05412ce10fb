"""A server that stops: what it sent counts, what it refused is told from what was lost, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from parallel_infer import AsyncClient, Client
from parallel_infer.errors import ServerStopping, ServerUnavailable, error_for
from tests.client.client_calls import in_thread, payload_of

COUNT = 24


def test_answers_that_arrived_unread_outlive_the_connection(server):
    """The event loop is blocked while the server answers all and goes."""

    async def main():
        async with AsyncClient(server.address, timeout=20) as client:
            jobs = [client.submit("held", b"%d" % number) for number in range(COUNT)]
            for _ in range(COUNT):
                await asyncio.to_thread(server.next)
            server.release()  # blocks the loop, as any computation would
            server.leave()
            return [payload_of(answer) for answer in await asyncio.gather(*jobs)]

    assert asyncio.run(main()) == [b"%d" % number for number in range(COUNT)]
    server.start()


def test_what_a_stopping_server_did_not_take_is_told_at_once_and_by_name(server):
    with Client(server.address) as client:
        began = time.monotonic()
        future = client.submit("silent", b"x", timeout=60)
        server.say(server.next().client, "stopping", "stopped")
        server.leave()
        try:
            with pytest.raises(ServerStopping, match="stopped before it took this request"):
                future.result(30)
            assert time.monotonic() - began < 30
        finally:
            server.start()


def test_after_the_stop_a_successor_is_asked(server):
    with Client(server.address) as client:
        refused = client.submit("silent", b"x", timeout=60)
        server.say(server.next().client, "stopping", "stopped")
        server.leave()
        assert isinstance(refused.exception(30), ServerStopping)
        later = client.submit("echo", b"y", timeout=60)
        server.start()
        assert payload_of(later.result(30)) == b"y"


def test_a_crash_is_no_refusal(server):
    """Nothing was said: the request is sent again, and where nobody comes back that is told as a loss."""
    with Client(server.address) as client:
        future = client.submit("silent", b"x", timeout=1.0)
        server.next()
        server.stop()
        try:
            error = future.exception(30)
            assert isinstance(error, ServerUnavailable)
            assert not isinstance(error, ServerStopping)
        finally:
            server.start()


def test_a_crash_in_the_middle_of_a_stop_is_no_refusal(server):
    """It had begun to stop, and did not get to say that it is done: it may have taken the request."""
    with Client(server.address) as client:
        future = client.submit("held", b"x", timeout=60)
        server.say(server.next().client, "stopping")
        server.restart()
        server.next()
        server.release()
        assert payload_of(future.result(30)) == b"x"


def test_a_refusal_because_of_a_stop_is_told_from_others():
    stopping = error_for("SERVER_UNAVAILABLE", "the server is stopping", "stopping")
    assert isinstance(stopping, ServerStopping)
    assert isinstance(stopping, ServerUnavailable)
    assert stopping.code == "SERVER_UNAVAILABLE"
    assert type(error_for("SERVER_UNAVAILABLE", "restarting")) is ServerUnavailable


def test_a_frame_in_a_lent_slot_is_told_too(lending, frame):
    with Client(lending.address) as client:

        def ask():
            with client.frame(*frame.shape[:2]) as lent:  # asks for a ring, and waits for it
                lent[:] = frame
                client.infer("silent", lent, timeout=60)

        join = in_thread(ask)
        received = lending.next()
        assert received.request.slot is not None
        lending.say(received.client, "stopping", "stopped")
        lending.leave()
        try:
            with pytest.raises(ServerStopping):
                join()
        finally:
            lending.start()


def test_nobody_is_left_waiting_when_the_connection_breaks_in_any_thread(server):
    with Client(server.address) as client:
        outcomes = []

        def ask():
            try:
                client.infer("silent", b"x", timeout=1.0)
            except ServerUnavailable as error:
                outcomes.append(error)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in threads:
            server.next()
        server.stop()
        try:
            for thread in threads:
                thread.join(30)
            assert len(outcomes) == len(threads)
        finally:
            server.start()


def test_both_clients_can_ask_for_a_stop(server):
    with Client(server.address) as client:
        assert client.stop()["type"] == "stop"

    async def main():
        async with AsyncClient(server.address) as client:
            return (await client.stop())["type"]

    assert asyncio.run(main()) == "stop"
