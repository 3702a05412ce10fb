"""Headers that somebody spoilt: each is read as a request or refused by name, and nothing else ever happens.

    python benchmarks/fuzz.py [--count 1000000] [--sent 20000] [--seed 0]

`--count` headers of every type of message go through the code that reads them; `--sent` in all go to a real server,
which must reply to each and serve right answers afterwards.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import zmq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import print_header
from benchmarks.nothing_model import write_nothing_model
from parallel_infer import Client, protocol
from parallel_infer.client.endpoint import Address, open_socket
from parallel_infer.errors import BadInput
from parallel_infer.gateway.requests import admitted_kind, read_request
from parallel_infer.ipc.client_socket import ReplyAddress
from parallel_infer.tools.local_server import local_server

SIZE = 16
TENSOR = protocol.Tensor("x", "uint8", (SIZE,))
SAMPLES: dict[str, protocol.Request] = {
    "infer": protocol.Infer(id=7, model="m", kind="tensors", tensors=(TENSOR,), timeout=1.5, priority=1, source="s"),
    "infer from a slot": protocol.Infer(id=7, model="m", slot=protocol.LentSlot(1, 0, 8), drop="latest"),
    "cancel": protocol.Cancel(id=7, job=6),
    "lend": protocol.Lend(id=7, slots=2, size=100, ring=1),
    "give_back": protocol.GiveBack(id=7, ring=1),
    "models": protocol.Models(id=7),
    "status": protocol.Status(id=7),
    "ready": protocol.Ready(id=7),
    "load_chain": protocol.LoadChain(id=7, name="c", steps="m > m"),
    "load": protocol.Load(id=7, name="m", path="m.onnx", options={"a": 1}),
    "unload": protocol.Unload(id=7, name="m"),
    "stop": protocol.Stop(id=7),
}
# Beginnings of long or deep things: maps, arrays, texts, bytes, numbers, extensions.
OPENINGS: tuple[bytes, ...] = (
    b"\xdf\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff",
    b"\xdb\x7f\xff\xff\xff",
    b"\xc6\x7f\xff\xff\xff",
    b"\x91" * 2000,
)
OPENINGS += (
    b"\xcf" + b"\xff" * 8,
    b"\xd3\x80" + b"\0" * 7,
    b"\xcb\x7f\xf0" + b"\0" * 6,
    b"\xd8" + b"\0" * 17,
    b"\xc1",
    b"\xc0",
)


class Frame:
    """What a ZeroMQ frame looks like to the gateway."""

    def __init__(self, content: bytes) -> None:
        self.bytes = content
        self.buffer = memoryview(content)

    def __len__(self) -> int:
        return len(self.bytes)


def spoilt(header: bytes, chance: random.Random) -> bytes:
    """A header after one to four changes."""
    changed = bytearray(header)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(5):
            case 0 if at < len(changed):
                changed[at] = chance.randrange(256)
            case 1:
                changed[at:at] = chance.randbytes(chance.randint(1, 8))
            case 2:
                del changed[at : at + chance.randint(1, 8)]
            case 3:
                changed[at : at + 1] = chance.choice(OPENINGS)
            case 4:
                changed = changed[:at]
    return bytes(changed)


def read(header: bytes) -> str:
    """What becomes of a header. Anything but a request or a BadInput passes through and ends the run."""
    requester = ReplyAddress(None, b"client")  # type: ignore[arg-type]
    try:
        request = read_request([Frame(header)], requester)
        if isinstance(request, protocol.Infer):
            admitted_kind(request)
    except BadInput:
        return "refused"
    assert 0 <= request.id < 2**63
    return "read"


def spoilt_headers(sample: protocol.Request, count: int, chance: random.Random) -> Iterator[bytes]:
    """Many spoilt copies of one header."""
    header = msgspec.msgpack.encode(sample)
    return (spoilt(header, chance) for _ in range(count))


def send_all(address: str, count: int, chance: random.Random) -> Counter[str]:
    """Replies of a server to spoilt headers, by kind. Raises TimeoutError where it stays silent."""
    replies: Counter[str] = Counter()
    samples = [sample for name, sample in SAMPLES.items() if name not in ("stop", "cancel", "unload", "load")]
    socket = open_socket(Address(address, None))
    socket.connect(address)
    try:
        for _ in range(count):
            header = spoilt(msgspec.msgpack.encode(chance.choice(samples)), chance)
            if read(header) == "read" and b"cancel" in header:
                continue  # a Cancel has no reply
            socket.send_multipart([header, bytes(SIZE)])
            if not socket.poll(30_000):
                raise TimeoutError(f"no reply to {header!r}")
            reply: Any = msgspec.msgpack.decode(next(filter(None, socket.recv_multipart())))  # "" before it is REQ's
            replies[reply.get("code", reply["type"])] += 1
    except zmq.Again:
        raise TimeoutError("the server takes nothing more") from None
    finally:
        socket.close()
    return replies


def serve_and_send(count: int, chance: random.Random) -> Counter[str]:
    """`send_all` to a server of our own, which must give right answers before and after."""
    with tempfile.TemporaryDirectory(prefix="pi-fuzz-") as folder:
        write_nothing_model(Path(folder) / "m.onnx", SIZE)
        with local_server("--model", f"m={folder}/m.onnx") as server, Client(server.address) as client:
            replies = send_all(server.address, count, chance)
            answer = client.infer("m", {"x": np.full(SIZE, 9, np.uint8)})
            assert answer.tensors["y"][0] == 9
            gateway: Any = client.status()["gateway"]
            assert gateway["pending"] == gateway["held"] == 0, gateway
            assert all(ring["free"] == ring["slots"] for ring in gateway["ingress"]), gateway
    return replies


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000, help="spoilt headers of each type that are read")
    parser.add_argument("--sent", type=int, default=20_000, help="spoilt headers that are sent to a server")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print_header()
    chance = random.Random(arguments.seed)
    started = time.perf_counter()
    for name, sample in SAMPLES.items():
        outcomes = Counter(read(header) for header in spoilt_headers(sample, arguments.count, chance))
        print(f"{name:20s} {outcomes['read']:10,} read {outcomes['refused']:12,} refused")
    if arguments.sent:
        replies = serve_and_send(arguments.sent, chance)
        print(f"{'sent to a server':20s} {', '.join(f'{count:,} {code}' for code, count in replies.most_common())}")
    print(f"no other outcome; {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
