"""The pipeline stripped to its messages: what ZeroMQ, MessagePack and one copy cost on this machine, and nothing else.

    python benchmarks/bare.py [--seconds 5]

The same processes and the same way of a job as the server's (client, gateway, dispatcher, decode, dispatcher, infer,
dispatcher, postprocess, gateway, client), without leases, deadlines, fairness, rings with generations, options, checks,
counters or recovery. benchmarks/overhead.py runs it beside the server: the ratio of the two means the same on any
machine, which neither figure does alone.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import msgpack
import zmq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import print_header

Socket = zmq.Socket[bytes]
_SLOTS = 256
_SLOT = 1 << 18  # bytes
_STAGES = (b"decode", b"infer", b"postprocess")


def _socket(kind: int, identity: bytes = b"") -> Socket:
    socket: Socket = zmq.Context.instance().socket(kind)
    socket.linger, socket.sndhwm, socket.rcvhwm = 0, 0, 0
    if identity:
        socket.identity = identity
    return socket


def _drained(socket: Socket) -> Iterator[list[bytes]]:
    """The first message, waiting for it, and those behind it."""
    yield socket.recv_multipart()
    while int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
        yield socket.recv_multipart(zmq.NOBLOCK)


def _gateway(folder: str, memory: str) -> None:
    ring = SharedMemory(memory)
    slots = ring.buf
    assert slots is not None  # it is open
    front, inside, answers = _socket(zmq.ROUTER), _socket(zmq.DEALER, b"gateway"), _socket(zmq.PULL)
    front.bind(f"ipc://{folder}/front")
    inside.connect(f"ipc://{folder}/inside")
    answers.bind(f"ipc://{folder}/answers")
    free = deque(range(_SLOTS))
    clients: dict[int, tuple[bytes, int]] = {}
    poller = zmq.Poller()
    poller.register(front, zmq.POLLIN)
    poller.register(answers, zmq.POLLIN)
    while True:
        there = dict(poller.poll())
        if answers in there:
            for frames in _drained(answers):
                for slot in msgpack.unpackb(frames[0]):
                    client, number = clients.pop(slot)
                    free.append(slot)
                    front.send_multipart([client, msgpack.packb(number), bytes(slots[slot * _SLOT : slot * _SLOT + 8])])
        if front in there:
            jobs = []
            for client, header, payload in _drained(front):
                slot = free.popleft()
                slots[slot * _SLOT : slot * _SLOT + len(payload)] = payload
                clients[slot] = client, msgpack.unpackb(header)
                jobs.append((slot, len(payload)))
            inside.send(msgpack.packb(jobs))


def _dispatcher(folder: str, ready: Any) -> None:
    socket = _socket(zmq.ROUTER)
    socket.bind(f"ipc://{folder}/inside")
    for _ in _STAGES:
        socket.recv_multipart()  # its greeting
    ready.set()
    following = {b"gateway": b"decode", b"decode": b"infer", b"infer": b"postprocess"}
    while True:
        waiting: dict[bytes, list[Any]] = {}
        for peer, frame in _drained(socket):
            target = following.get(peer)
            if target is not None:
                waiting.setdefault(target, []).extend(msgpack.unpackb(frame))
        for target, jobs in waiting.items():
            socket.send_multipart([target, msgpack.packb(jobs)])


def _stage(folder: str, memory: str, stage: bytes) -> None:
    ring = SharedMemory(memory)
    slots = ring.buf
    assert slots is not None  # it is open
    inside, answers = _socket(zmq.DEALER, stage), _socket(zmq.PUSH)
    inside.connect(f"ipc://{folder}/inside")
    answers.connect(f"ipc://{folder}/answers")
    inside.send(b"")
    row = bytearray(_SLOT)
    while True:
        for (frame,) in _drained(inside):
            jobs = msgpack.unpackb(frame)
            if stage == b"decode":
                for slot, size in jobs:
                    row[:size] = slots[slot * _SLOT : slot * _SLOT + size]
            if stage == b"postprocess":
                answers.send(msgpack.packb([slot for slot, _ in jobs]))
            else:
                inside.send(frame)


@contextlib.contextmanager
def bare_server() -> Iterator[Socket]:
    """A client's socket, connected to a bare pipeline of five processes."""
    spawn = get_context("spawn")
    ring, ready = SharedMemory(create=True, size=_SLOTS * _SLOT), spawn.Event()
    with tempfile.TemporaryDirectory(prefix="pi-bare-") as folder:
        targets: list[tuple[Any, tuple[Any, ...]]] = [(_gateway, (folder, ring.name)), (_dispatcher, (folder, ready))]
        targets += [(_stage, (folder, ring.name, stage)) for stage in _STAGES]
        processes = [spawn.Process(target=target, args=arguments, daemon=True) for target, arguments in targets]
        for process in processes:
            process.start()
        client = _socket(zmq.DEALER)
        client.connect(f"ipc://{folder}/front")
        try:
            if not ready.wait(30):
                raise TimeoutError("the bare pipeline did not start within 30 s")
            yield client
        finally:
            client.close()
            for process in processes:
                process.terminate()
                process.join()
            ring.close()
            ring.unlink()


def throughput(client: Socket, size: int, in_flight: int, seconds: float) -> float:
    """Jobs per second with `in_flight` jobs under way."""
    payload = bytes(size)
    for number in range(in_flight):
        client.send_multipart([msgpack.packb(number), payload])
    done, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds:
        for header, _ in _drained(client):
            done += 1
            client.send_multipart([header, payload])
    for _ in range(in_flight):
        client.recv_multipart()
    return done / spent


def latencies(client: Socket, size: int, count: int) -> list[float]:
    """Seconds of single jobs, one after the other."""
    payload, found = bytes(size), []
    for number in range(count):
        started = time.perf_counter()
        client.send_multipart([msgpack.packb(number), payload])
        client.recv_multipart()
        found.append(time.perf_counter() - started)
    return sorted(found)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    arguments = parser.parse_args()
    print_header()
    with bare_server() as client:
        for size in (100, 150_000):
            for in_flight in (8, 64):
                rate = throughput(client, size, in_flight, arguments.seconds)
                print(f"{size} bytes, {in_flight} in flight, jobs/s {rate:10,.0f}")
            print(f"{size} bytes, one at a time, p50 ms {statistics.median(latencies(client, size, 1000)) * 1000:8.3f}")


if __name__ == "__main__":
    main()
