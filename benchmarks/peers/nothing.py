"""A model that does nothing over HTTP: what the servers themselves cost, ours and peers in turns.

    benchmarks/peers/build.sh mosec litserve                   makes their environments
    python benchmarks/peers/nothing.py [--in-flight 64] [--rounds 3] [--seconds 3]

100 bytes in, a byte out, through ONNX Runtime in every server; one client of plain sockets for all. Peers are first
tried with one and two workers, with batches and without, and measured as they are fastest. Ours runs as it starts, and
is asked by the Open Inference Protocol with binary tensors. One server is alive at a time; ratios are of rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.doors import SIZE, Figures, closed_loop
from benchmarks.fuzz_support.http_client import Conversation
from benchmarks.machine import free_port, print_header
from benchmarks.nothing_model import write_nothing_model
from benchmarks.peers.peer import Peer, launched
from benchmarks.peers.work import Setup
from parallel_infer.tools.local_server import local_server

PEERS = (
    Peer("mosec", "Mosec", "/inference", work="nothing"),
    Peer("litserve", "LitServe", "/predict", work="nothing"),
)
TRIED = ((1, 1), (1, 64), (2, 1), (2, 64))  # workers, largest batch
PATIENCE = 60.0  # seconds until a server answers


@dataclass(frozen=True)
class Asked:
    """A request as bytes and where it goes."""

    port: int
    request: bytes


def post(port: int, path: str, body: bytes, more: str = "") -> Asked:
    """A POST of `body`."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    return Asked(port, head.encode() + body)


@contextlib.contextmanager
def ours(model: Path) -> Iterator[Asked]:
    """Our server with its HTTP door."""
    port = free_port()
    tensor = {"name": "x", "datatype": "UINT8", "shape": [1, SIZE], "parameters": {"binary_data_size": SIZE}}
    header = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    more = f"Inference-Header-Content-Length: {len(header)}\r\n"
    with local_server("--model", f"nothing={model}", "--http", f"127.0.0.1:{port}", "--provider", "cpu"):
        yield post(port, "/v2/models/nothing/infer", header + bytes(SIZE), more)


@contextlib.contextmanager
def theirs(peer: Peer, model: Path, workers: int, batch: int) -> Iterator[Asked]:
    """A peer that answers."""
    setup = Setup(str(model), free_port(), workers=workers, batch=batch, delay_ms=1.0, queue=1024)
    with launched(peer, setup):
        asked = post(setup.port, peer.path, bytes(SIZE))
        asyncio.run(_answering(asked))
        yield asked


async def _answering(asked: Asked) -> None:
    async with asyncio.timeout(PATIENCE):
        conversation = Conversation("127.0.0.1", asked.port)
        while (await conversation.ask(asked.request, whole=True))[0] != "200":  # noqa: ASYNC110 - it opens its port before its workers are ready
            await asyncio.sleep(0.2)
        conversation.close()


async def load(asked: Asked, in_flight: int, seconds: float) -> Figures:
    """So many requests under way, each on a connection of its own."""
    conversations = [Conversation("127.0.0.1", asked.port) for _ in range(in_flight)]

    async def ask(conversation: Conversation) -> None:
        status, answer = await conversation.ask(asked.request, whole=True)
        assert status == "200", (status, answer[:500])

    try:
        return await closed_loop([lambda each=each: ask(each) for each in conversations], seconds)  # type: ignore[misc]
    finally:
        for conversation in conversations:
            conversation.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--trial-seconds", type=float, default=1.5, help="of each setting of a peer")
    arguments = parser.parse_args()
    print_header()
    with tempfile.TemporaryDirectory(prefix="pi-bench-") as folder:
        model = Path(folder) / "nothing.onnx"
        write_nothing_model(model, SIZE)
        best: dict[str, tuple[int, int]] = {}
        built = [peer for peer in PEERS if peer.is_built]
        for peer in built:
            rates = {}
            for workers, batch in TRIED:
                with theirs(peer, model, workers, batch) as asked:
                    rates[workers, batch] = asyncio.run(load(asked, arguments.in_flight, arguments.trial_seconds)).rate
            best[peer.name] = max(rates, key=lambda setting: rates[setting])
            print(
                f"{peer.title}: " + ", ".join(f"{w} workers, batches of {b}: {r:,.0f}/s" for (w, b), r in rates.items())
            )
        found: dict[str, list[Figures]] = {}
        for _ in range(arguments.rounds):
            with ours(model) as asked:
                found.setdefault("ours", []).append(asyncio.run(load(asked, arguments.in_flight, arguments.seconds)))
            for peer in built:
                with theirs(peer, model, *best[peer.name]) as asked:
                    figures = asyncio.run(load(asked, arguments.in_flight, arguments.seconds))
                    found.setdefault(peer.title, []).append(figures)
    print(f"\n{'':12s} {'per second':>11s} {'ours is':>8s} {'rounds':>12s} {'p50 ms':>8s} {'p99 ms':>8s}")
    for name, measured in found.items():
        ratios = [mine.rate / each.rate for mine, each in zip(found["ours"], measured, strict=True)]
        rate = statistics.median(each.rate for each in measured)
        p50, p99 = (1000 * statistics.median(getattr(each, part) for each in measured) for part in ("p50", "p99"))
        spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
        print(f"{name:12s} {rate:11,.0f} {statistics.median(ratios):8.2f} {spread:>12s} {p50:8.2f} {p99:8.2f}")


if __name__ == "__main__":
    main()
