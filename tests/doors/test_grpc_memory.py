"""Messages of the gRPC door are bounded all together: a real server and client, and a gateway that takes its time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from parallel_infer.doors.grpc.codec import typed_weight
from parallel_infer.doors.grpc.messages import message
from parallel_infer.doors.lifetime import Activity
from parallel_infer.doors.memory import Memory
from parallel_infer.errors import UnknownModel

grpc = pytest.importorskip("grpc", reason="the gRPC door needs the extra grpc")
from parallel_infer.doors.grpc.servicer import SERVICE, Servicer  # noqa: E402

MB = 1 << 20
Infer = message("inference.ModelInferRequest")
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Gateway:
    """Knows no model, and says so when it may."""

    def __init__(self) -> None:
        self.asked, self.may = asyncio.Semaphore(0), asyncio.Event()

    async def find(self, name: str) -> Any:
        self.asked.release()
        await self.may.wait()
        raise UnknownModel(f"no model {name!r}")


def request(size: int, numbers: int = 0) -> bytes:
    """A request of `size` bytes and as many numbers among its contents."""
    made = Infer(model_name="m", raw_input_contents=[] if numbers else [bytes(size)])
    made.inputs.add(name="x", datatype="INT32", shape=[numbers or size // 4])
    if numbers:
        made.inputs[0].contents.int_contents.extend([1] * numbers)
    return bytes(made.SerializeToString())


def with_door(test: Callable[[Gateway, Any], Coroutine[Any, Any, None]]) -> None:
    """Run a test against a door whose messages may take 8 MB."""

    async def run() -> None:
        gateway = Gateway()
        activity = Activity(lambda told: None)
        servicer = Servicer(gateway, None, "1", activity, Memory(8 * MB, "messages", "grpc_memory_mb"))  # type: ignore[arg-type]
        server = grpc.aio.server(options=OPTIONS)
        server.add_generic_rpc_handlers(servicer.handlers())
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel:
                await test(gateway, channel)
        finally:
            await server.stop(None)

    asyncio.run(run())


async def end_of(call: Awaitable[Any]) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return failed.value.code().name, failed.value.details() or ""


def test_messages_that_find_no_room_are_refused_by_name_until_there_is_some() -> None:
    async def test(gateway: Gateway, channel: Any) -> None:
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        first = infer(request(3 * MB))
        await gateway.asked.acquire()
        status, text = await end_of(infer(request(3 * MB)))
        assert status == "UNAVAILABLE"
        assert "option grpc_memory_mb" in text
        streamed = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
        answers = streamed(iter([request(3 * MB)]))
        found = message("inference.ModelStreamInferResponse").FromString(await anext(aiter(answers)))
        assert "option grpc_memory_mb" in found.error_message
        small = infer(request(1000))
        await gateway.asked.acquire()  # there is room for this one
        gateway.may.set()
        for call in (first, small, infer(request(3 * MB))):
            assert (await end_of(call))[0] == "NOT_FOUND"

    with_door(test)


@pytest.mark.parametrize("data", [request(5 * MB), request(0, numbers=250_000)], ids=["raw", "typed"])
def test_a_message_that_never_finds_room_is_refused_for_good(data: bytes) -> None:
    async def test(gateway: Gateway, channel: Any) -> None:
        gateway.may.set()
        status, text = await end_of(channel.unary_unary(f"/{SERVICE}/ModelInfer")(data))
        assert status == "INVALID_ARGUMENT"
        assert "option grpc_memory_mb" in text

    with_door(test)


def test_numbers_weigh_what_they_take_when_they_are_read() -> None:
    assert typed_weight(Infer.FromString(request(1000))) == 0
    assert typed_weight(Infer.FromString(request(0, numbers=1000))) == 40_000
