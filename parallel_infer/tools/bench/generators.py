"""The processes of the load generator, seen from the one that counts."""

from __future__ import annotations

from multiprocessing.connection import Connection as Pipe
from typing import Self

import msgspec
from msgspec import Struct

from parallel_infer.client.connection import Connection
from parallel_infer.client.endpoint import Address
from parallel_infer.errors import ConfigError
from parallel_infer.keys.client import Key
from parallel_infer.tools.bench.bench_process import BenchProcess, messages
from parallel_infer.tools.bench.load import Load
from parallel_infer.tools.bench.payloads import Source
from parallel_infer.tools.bench.record import Order, Record

_encode = msgspec.msgpack.Encoder().encode
_START_TIMEOUT = 60.0  # seconds
_ENTRY = f"{__name__}:run"
_GRACE = 30.0  # seconds a record may take beyond the load and its timeout


class Target(Struct, frozen=True):
    """Where a load goes, and what it consists of."""

    address: str
    source: Source
    key: str | Key | None = None  # a key file, or what is in it


class Generators:
    """So many load processes, which make one load together. Use it in a `with`."""

    def __init__(self, target: Target, count: int = 1) -> None:
        self.target = target
        self._processes = [BenchProcess(f"load-{number}", _ENTRY, _encode(target)) for number in range(count)]

    @property
    def count(self) -> int:
        return len(self._processes)

    def ready(self) -> None:
        """Wait until all have started and hold their payloads. Raises ConfigError where there is nothing to send."""
        for process in self._processes:
            error = process.receive(_START_TIMEOUT).decode()
            if error:
                raise ConfigError(error)

    def give(self, order: Order) -> None:
        """Have each of them make its share of a load."""
        for number, process in enumerate(self._processes):
            process.send(_encode(share_of(order, number, self.count)))

    def records(self, order: Order) -> list[Record]:
        """Wait for what they saw."""
        patience = order.end - order.begin + order.timeout + _GRACE
        return [msgspec.msgpack.decode(process.receive(patience), type=Record) for process in self._processes]

    def close(self) -> None:
        """End all of them."""
        for process in self._processes:
            process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def share_of(order: Order, number: int, count: int) -> Order:
    """What process `number` of `count` does of a load."""
    in_flight = order.in_flight // count + (number < order.in_flight % count)
    return msgspec.structs.replace(
        order, in_flight=in_flight, rate=order.rate / count, seed=order.seed * count + number
    )


def run(pipe: Pipe) -> None:
    """A load process: take a Target, then orders until the pipe closes."""
    received = messages(pipe)
    target = msgspec.msgpack.decode(next(received), type=Target)
    try:
        payloads = target.source.payloads()
    except ConfigError as error:
        pipe.send_bytes(str(error).encode())
        return
    connection = Connection(Address(target.address, None if target.key is None else Key.of(target.key)))
    pipe.send_bytes(b"")
    for order in received:
        load = Load(connection, msgspec.msgpack.decode(order, type=Order), payloads)
        pipe.send_bytes(_encode(load.run()))
    connection.close()
