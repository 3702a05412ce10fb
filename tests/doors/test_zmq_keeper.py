"""Who connects to a ZeroMQ door whose clients show no key."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.asyncio

from parallel_infer.doors.access import Networks
from parallel_infer.doors.lifetime import Activity
from parallel_infer.doors.zmq_door import Response, ZmqDoor

PATIENCE = 60.0  # seconds


@pytest.mark.parametrize(
    ("address", "held"),
    [
        ("10.0.0.7", True),
        ("::ffff:10.0.0.7", True),
        ("10.0.0.8", False),
        ("192.168.1.200", True),
        ("192.168.2.1", False),
        ("fd00::5", True),
        ("fe00::5", False),
        ("", False),
        ("camera", False),
    ],
)
def test_addresses_are_those_of_the_networks(address: str, held: bool) -> None:
    assert Networks(["10.0.0.7", "192.168.1.0/24", "fd00::/8"]).hold(address) is held


async def echo(client: bytes, frames: list[Any]) -> Response:
    return Response([frame.bytes for frame in frames])


async def heard(context: zmq.asyncio.Context, address: str) -> bool:
    """Whether a client at `address` is answered; False where the door refuses the handshake."""
    client = context.socket(zmq.REQ)
    news = client.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
    client.connect(address)
    await client.send(b"frame")
    try:
        waiting = [asyncio.ensure_future(socket.recv_multipart()) for socket in (client, news)]
        done, others = await asyncio.wait(waiting, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        for other in others:
            other.cancel()
        assert done
        return waiting[0] in done
    finally:
        client.disable_monitor()
        news.close(0)
        client.close(0)


def test_a_door_lets_in_the_addresses_that_it_is_told() -> None:
    async def test() -> None:
        told: list[Any] = []
        activity = Activity(told.append)
        door = ZmqDoor("tcp://127.0.0.1:*", 1000, echo, activity, Networks(["127.0.0.2"]))
        stop = asyncio.Event()
        running = asyncio.ensure_future(door.run(stop))
        with zmq.asyncio.Context() as context:
            place = door.address.removeprefix("tcp://")
            assert await heard(context, f"tcp://127.0.0.2:0;{place}")
            assert not await heard(context, f"tcp://127.0.0.3:0;{place}")
            assert await heard(context, f"tcp://127.0.0.2:0;{place}")
        stop.set()
        await running
        door.close()
        activity.report()
        assert told[-1].requests["refused"] >= 1
        assert told[-1].refused["UNAUTHORIZED"] == told[-1].requests["refused"]
        assert told[-1].requests["ok"] == 2

    asyncio.run(test())


def test_a_socket_is_for_this_user_alone(tmp_path: Path) -> None:
    async def test() -> None:
        door = ZmqDoor(f"ipc://{tmp_path}/door", 1000, echo, Activity(lambda told: None), Networks(["10.0.0.7"]))
        stop = asyncio.Event()
        running = asyncio.ensure_future(door.run(stop))
        assert stat.S_IMODE((tmp_path / "door").stat().st_mode) == 0o600
        with zmq.asyncio.Context() as context:
            assert await heard(context, door.address)
        stop.set()
        await running
        door.close()

    asyncio.run(test())
