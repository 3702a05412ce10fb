"""The client for asyncio."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from parallel_infer import AsyncClient, protocol
from parallel_infer.errors import BadInput, Dropped, ServerUnavailable, Unanswered, UnknownModel
from tests.client.client_calls import payload_of


def numbered(count):
    return [b"%d" % number for number in range(count)]


async def received(server, kind=protocol.Infer):
    return await asyncio.to_thread(server.next, kind)


def test_infer(server, frame):
    async def main():
        async with AsyncClient(server.address) as client:
            assert payload_of(await client.infer("echo", b"x", confidence=0.5)) == b"x"
            assert payload_of(await client.infer("twice", frame)) == frame.tobytes()
            answers = await asyncio.gather(*(client.infer("twice", picture) for picture in numbered(200)))
            assert [payload_of(answer) for answer in answers] == numbered(200)
            task = client.submit("echo", b"later")
            assert payload_of(await task) == b"later"

    asyncio.run(main())


def test_errors(server, nobody):
    async def main():
        async with AsyncClient(server.address) as client:
            with pytest.raises(UnknownModel):
                await client.infer("fail:UNKNOWN_MODEL", b"x")
            with pytest.raises(BadInput):
                await client.infer("echo", None)
            await client.infer("echo", b"x")
            with pytest.raises(Unanswered, match="not answered"):
                await client.infer("silent", b"x", timeout=0.05)
        with pytest.raises(ServerUnavailable, match="closed"):
            await client.infer("echo", b"x")
        async with AsyncClient(nobody, timeout=0.05) as client:
            with pytest.raises(ServerUnavailable, match="Nobody listens"):
                await client.infer("echo", b"x")

    asyncio.run(main())


def test_cancelled_task_cancels_the_job(server):
    async def main():
        async with AsyncClient(server.address) as client:
            task = client.submit("held", b"x")
            job = (await received(server)).request.id
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await received(server, protocol.Cancel)).request.job == job
            server.release()
            assert payload_of(await client.infer("echo", b"y")) == b"y"

    asyncio.run(main())


def test_restart(server):
    async def main():
        async with AsyncClient(server.address) as client:
            tasks = [client.submit("held", picture, timeout=10) for picture in numbered(20)]
            for _ in tasks:
                await received(server)
            await asyncio.to_thread(server.restart)
            for _ in tasks:
                await received(server)
            server.release()
            assert [payload_of(await task) for task in tasks] == numbered(20)

    asyncio.run(main())


def test_many(server):
    async def source():
        for picture in numbered(50):
            yield picture

    async def main():
        async with AsyncClient(server.address) as client:
            for pictures in (numbered(50), source()):
                answers = await client.infer_many("echo", pictures, in_flight=8)
                assert [payload_of(answer) for answer in answers] == numbered(50)
            server.room = 3
            answers = await client.infer_many("full", numbered(40))
            assert [payload_of(answer) for answer in answers] == numbered(40)
            assert server.most_held == 3
            found = await client.infer_many("echo", [b"a", None], errors="return")
            assert isinstance(found[1], BadInput)
            assert await client.infer_many("echo", []) == []

    asyncio.run(main())


def test_cancelled_many_cancels_its_jobs(server):
    async def main():
        async with AsyncClient(server.address) as client:
            task = asyncio.create_task(client.infer_many("held", numbered(3)))
            jobs = {(await received(server)).request.id for _ in range(3)}
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert {(await received(server, protocol.Cancel)).request.job for _ in range(3)} == jobs

    asyncio.run(main())


def test_close_fails_what_is_on_its_way(server):
    async def main():
        client = AsyncClient(server.address)
        task = client.submit("silent", b"x")
        await received(server)
        await client.close()
        await client.close()
        with pytest.raises(ServerUnavailable, match="closed"):
            await task

    asyncio.run(main())


def test_stream(server):
    async def main():
        async with AsyncClient(server.address) as client:
            seen = [(number, payload_of(answer)) async for number, answer in client.stream("echo", numbered(40))]
            assert seen == list(enumerate(numbered(40)))
            outcomes = dict([pair async for pair in client.stream("echo", [b"a", None])])
            assert isinstance(outcomes[1], BadInput)

    asyncio.run(main())


def test_stream_of_latest_drops_what_waits(server):
    async def main():
        more = asyncio.Event()

        async def frames():
            for picture in numbered(10):
                yield picture
                if picture == b"8":
                    await more.wait()

        async with AsyncClient(server.address) as client:
            stream = client.stream("held", frames(), drop="latest", in_flight=2, source="door")
            first = asyncio.create_task(anext(stream))
            assert [(await received(server)).payload for _ in range(2)] == [b"0", b"1"]
            server.release()
            assert (await first)[0] == 0
            request = (await received(server)).request
            assert (request.source, request.drop) == ("door", "latest")
            server.infer = server.echo
            server.release()
            more.set()
            rest = dict([pair async for pair in stream])
            assert sorted(rest) == list(range(1, 10))
            assert sum(isinstance(outcome, Dropped) for outcome in rest.values()) >= 5
            assert payload_of(rest[9]) == b"9"

    asyncio.run(main())


def test_stream_of_a_source_that_fails(server):
    async def frames():
        yield b"x"
        raise OSError("the camera is gone")

    async def main():
        async with AsyncClient(server.address) as client:
            stream = client.stream("echo", frames())
            assert payload_of((await anext(stream))[1]) == b"x"
            with pytest.raises(OSError, match="camera"):
                await anext(stream)

    asyncio.run(main())


def test_stream_that_is_left_early(server):
    async def main():
        async with AsyncClient(server.address) as client:
            stream = client.stream("held", numbered(9), in_flight=3)
            first = asyncio.create_task(anext(stream))
            for _ in range(3):
                await received(server)
            server.release(1)
            await first
            await stream.aclose()
            assert await received(server, protocol.Cancel)
            assert await client.ready()

    asyncio.run(main())


def test_management(server):
    async def main():
        async with AsyncClient(server.address) as client:
            assert (await client.models())["type"] == "models"
            assert (await client.status())["type"] == "status"
            assert (await client.load("m", "/m.onnx", instances=2))["options"] == {"instances": 2}
            assert (await client.unload("m"))["name"] == "m"

    asyncio.run(main())


def test_frame_in_a_lent_slot(lending):
    async def main():
        async with AsyncClient(lending.address) as client, client.frame(48, 64) as frame:
            for value in (1, 2):
                frame[:] = value
                assert payload_of(await client.infer("echo", frame)) == bytes([value]) * frame.size
                assert (await received(lending)).request.slot is not None
            other = np.full((48, 64, 3), 9, np.uint8)
            assert payload_of(await client.infer("echo", other)) == other.tobytes()

    asyncio.run(main())
