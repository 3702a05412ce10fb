"""Stops under load: is every admitted job answered, and does every request get a reply?

    python benchmarks/stops.py [--stops 200] [--loops 3] [--seed 1]

Each stop is of a server of its own, on ipc or tcp in turn, with answers of 1 byte to 4 MB. There ask without a pause: 8
threads of a Client, an AsyncClient whose event loop is blocked for half of the time, and 4 DEALER sockets of their own,
two of which want to be told of a stop (ZMQ_PROBE_ROUTER). One more has 16 answers coming, reads one every 20 ms, and
asks for no more once the stop has been asked for. A second Client has 24 jobs under way. `--loops` busy loops run
beside all that. The server is told to stop by SIGTERM, SIGINT or `parallel-infer stop`; before every other stop its
configuration changes and it gets SIGHUP.

An answer is right when it has its size and its value. A job is lost when it ends with anything but its answer or a
refusal that says that the server is stopping. Ends with 1 where a job was lost, a request has no reply, the server's
exit code is not 0 or it says that it abandoned a job.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import onnx
import zmq
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import print_header
from parallel_infer import AsyncClient, Client
from parallel_infer.errors import InferError, ResourceUnavailable, ServerStopping
from parallel_infer.tools.local_server import LocalServer, local_server

SIZES = (1, 4096, 1 << 18, 1 << 20, 1 << 22)  # bytes of an answer
TIMEOUT = 20.0  # seconds of a job: far more than any stop
SILENCE = 8.0  # seconds after the server's end until a request counts as one without a reply
WAYS = ("SIGTERM", "SIGINT", "stop")
TOML = """bind = ["{bind}"]
provider = "cpu"
threads = 1
instances = 1
decode_workers = 1
postprocess_workers = 2
shared_memory_mb = 256
max_payload_mb = 1
max_batch_size = 1
queue_size = 512
drain_timeout_ms = 100000
"""


def write_model(path: Path, size: int) -> None:
    """x uint8 [batch, 1] -> y uint8 [batch, size], all x."""
    graph = helper.make_graph(
        [helper.make_node("Expand", ["x", "shape"], ["y"])],
        "repeat",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["batch", 1])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, ["batch", size])],
        [numpy_helper.from_array(np.array([1, size], np.int64), "shape")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


class Stop:
    """One stop: who asks, what became of it."""

    def __init__(self, server: LocalServer, seed: int) -> None:
        self.server = server
        self.ends: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._asked_to_stop = threading.Event()
        self._over = threading.Event()  # the server has ended
        self._notices: defaultdict[Any, bool] = defaultdict(bool)  # DEALER sockets that were told of the stop
        self._context = zmq.Context()
        self._several = Client(server.address, timeout=TIMEOUT)
        self._steady = Client(server.address, timeout=TIMEOUT)
        self._threads = [threading.Thread(target=self._ask, args=(seed + number,)) for number in range(8)]
        self._threads += [threading.Thread(target=self._ask_wire, args=(seed, number < 2)) for number in range(4)]
        self._threads += [threading.Thread(target=self._read_slowly)]
        self._threads += [threading.Thread(target=lambda: asyncio.run(self._ask_in_a_loop(seed)))]

    def run(self, stop: Callable[[], None]) -> float:
        """Load the server, stop it, wait for everybody; how many seconds it took to end."""
        for thread in self._threads:
            thread.start()
        while self.ends["answers"] < 50:
            time.sleep(0.01)
        futures = []
        for _ in range(24):
            size, value = self._random.choice(SIZES), self._random.randrange(256)
            futures.append((size, value, self._several.submit(f"m{size}", np.array([value], np.uint8))))
        time.sleep(self._random.uniform(0.0, 0.3))
        began = time.monotonic()
        self._asked_to_stop.set()
        stop()
        self.server.process.wait(120)
        seconds = time.monotonic() - began
        self._over.set()
        for size, value, future in futures:
            self._note(size, value, partial(future.result, TIMEOUT + 10))
        for thread in self._threads:
            thread.join()
        for client in (self._several, self._steady):
            client.close()
        self._context.term()
        return seconds

    def _note(self, size: int, value: int, ask: Callable[[], Any]) -> bool:
        """Count how a job of the library ends; whether the server still takes jobs."""
        try:
            found = ask().tensors["y"]
        except ServerStopping as error:
            self.ends["told by the client" if "stopped before" in str(error) else "refused"] += 1
            return False
        except ResourceUnavailable:
            self.ends["refused for want of room"] += 1
            return True
        except (InferError, TimeoutError) as error:
            if "Nobody listens" in str(error):  # it asked when there was no server any more
                self.ends["asked after the end"] += 1
                return False
            self.ends["LOST"] += 1
            self.ends[f"LOST: {type(error).__name__}: {error}"] += 1
            return False
        self.ends["answers" if _right(found, size, value) else "WRONG"] += 1
        return True

    def _ask(self, seed: int) -> None:
        chance, going = random.Random(seed), True
        while going and _listens(self.server.address):
            size, value = chance.choice(SIZES[:3]), chance.randrange(256)
            going = self._note(size, value, lambda: self._steady.infer(f"m{size}", np.array([value], np.uint8)))  # noqa: B023

    async def _ask_in_a_loop(self, seed: int) -> None:
        chance = random.Random(seed)
        async with AsyncClient(self.server.address, timeout=TIMEOUT) as client:
            going = True
            while going and _listens(self.server.address):
                asked = [(chance.choice(SIZES), chance.randrange(256)) for _ in range(8)]
                jobs = [client.submit(f"m{size}", np.array([value], np.uint8)) for size, value in asked]
                await asyncio.sleep(0)
                time.sleep(chance.uniform(0.0, 0.5))  # noqa: ASYNC251 - blocks the loop, as any computation would
                await asyncio.gather(*jobs, return_exceptions=True)
                for (size, value), job in zip(asked, jobs, strict=True):
                    going = self._note(size, value, job.result) and going

    def _wire(self, **options: int) -> zmq.Socket[bytes]:
        dealer = self._context.socket(zmq.DEALER)
        dealer.linger = 0
        for name, value in options.items():
            setattr(dealer, name, value)
        dealer.connect(self.server.address)
        return dealer

    def _ask_wire(self, seed: int, says_hello: bool) -> None:
        """One request after the other until it is refused."""
        chance, number, dealer = random.Random(seed), 1, self._wire(probe_router=says_hello)
        monitor = dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        going = True
        while going and not monitor.poll(0):
            number += 1
            size, value = chance.choice(SIZES[:4]), chance.randrange(256)
            _send(dealer, number, size, value)
            going = self._take(dealer, {number: (size, value)}, told=says_hello)
        dealer.disable_monitor()
        monitor.close(0)
        dealer.close()

    def _read_slowly(self) -> None:
        chance, dealer = random.Random(0), self._wire(rcvhwm=1, rcvbuf=65536)
        going = True
        while going and not self._asked_to_stop.is_set():  # from then on it only reads
            open_: dict[int, tuple[int, int]] = {}
            for number in range(16):
                open_[number] = chance.choice(SIZES), chance.randrange(256)
                _send(dealer, number, *open_[number])
            while open_ and going:
                time.sleep(0.02)
                going = self._take(dealer, open_)
            while open_ and not going and self._take(dealer, open_, last=True):
                pass
        self.ends["WITHOUT A REPLY"] += len(open_)
        dealer.close()

    def _take(
        self, dealer: zmq.Socket[bytes], open_: dict[int, tuple[int, int]], last: bool = False, told: bool = False
    ) -> bool:
        """Take one reply to what is open; whether to go on. Who was `told` of the stop knows what an end means."""
        since = None
        while True:
            if dealer.poll(100):
                header, *payload = dealer.recv_multipart()
                reply = msgpack.unpackb(header, strict_map_key=False)
                if reply["id"] in open_:
                    break
                self._notices[dealer] |= reply.get("reason") == "stopped"
                continue
            if self._over.is_set():  # what it sent has left it, and waits at most for us to read
                since = since or time.monotonic()
                if time.monotonic() - since > SILENCE:
                    if told:
                        self.ends["told by the notice" if self._notices[dealer] else "WITHOUT A REPLY"] += 1
                    elif not last:
                        self.ends["WITHOUT A REPLY"] += 1
                        open_.clear()
                    return False
        size, value = open_.pop(reply["id"])
        if reply["type"] == "error" and reply["code"] == ResourceUnavailable.code:
            self.ends["refused for want of room"] += 1
        elif reply["type"] == "error":
            self.ends["refused" if reply.get("reason") == "stopping" else f"LOST: {reply['code']}"] += 1
            return last
        elif size >= 0:
            self.ends["answers" if _right(np.frombuffer(payload[0], np.uint8), size, value) else "WRONG"] += 1
        return True


def _listens(address: str) -> bool:
    """Whether there is anybody to be asked."""
    kind, _, place = address.partition("://")
    host, _, port = place.rpartition(":")
    with socket.socket(socket.AF_UNIX if kind == "ipc" else socket.AF_INET) as probe:
        return not probe.connect_ex(place if kind == "ipc" else (host, int(port)))


def _send(dealer: zmq.Socket[bytes], number: int, size: int, value: int) -> None:
    header = {"v": 1, "type": "infer", "id": number, "model": f"m{size}", "kind": "tensors", "timeout": TIMEOUT}
    header["tensors"] = [["x", "uint8", [1]]]
    dealer.send_multipart([msgpack.packb(header), bytes([value])])


def _right(found: Any, size: int, value: int) -> bool:
    return found.size == size and bool((found == value).all())


@contextlib.contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Programs that want all the processor they can get."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def one_stop(number: int, folder: Path, seed: int) -> tuple[Counter[str], float, int, str]:
    """How the jobs of one stop ended, its seconds, the exit code, and the last line of the log."""
    chance = random.Random(seed)
    bind = f"ipc://{folder}/server" if number % 2 else "tcp://127.0.0.1:0"
    config = folder / "server.toml"
    models = "".join(f'[models.m{size}]\npath = "{folder}/m{size}.onnx"\n' for size in SIZES)
    config.write_text(TOML.format(bind=bind) + models)
    way, reload = WAYS[number % len(WAYS)], number // 2 % 2
    log = folder / "log"
    with log.open("w") as stderr, local_server("--bind", bind, "--config", str(config), stderr=stderr) as server:

        def stop() -> None:
            if reload:
                config.write_text(TOML.format(bind=bind) + models.replace('onnx"\n', 'onnx"\nweight = 2.0\n', 1))
                server.process.send_signal(signal.SIGHUP)
                time.sleep(chance.uniform(0.0, 1.0))
            if way == "stop":
                command = [sys.executable, "-m", "parallel_infer", "stop", "--server", server.address]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            else:
                server.process.send_signal(getattr(signal, way))

        found = Stop(server, seed)
        seconds = found.run(stop)
        code = server.process.returncode
    said = [line for line in log.read_text().splitlines() if "stopped: " in line]
    return found.ends, seconds, code, said[-1] if said else ""


def main() -> int:
    """Run and print; 1 where something that was owed is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stops", type=int, default=200)
    parser.add_argument("--loops", type=int, default=3, help="busy loops beside it")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print_header()
    total: Counter[str] = Counter()
    times: list[float] = []
    unclean: list[str] = []
    with tempfile.TemporaryDirectory(prefix="pi-stops-") as folder, busy_loops(arguments.loops):
        for size in SIZES:
            write_model(Path(folder) / f"m{size}.onnx", size)
        for number in range(arguments.stops):
            ends, seconds, code, said = one_stop(number, Path(folder), arguments.seed * 10_000 + number * 20)
            total.update(ends)
            times.append(seconds)
            if code or not re.search(r" 0 abandoned$", said):
                unclean.append(f"stop {number}: exit code {code}, {said or 'nothing in the log'}")
            print(f"stop {number}: {seconds:.1f} s, {dict(ends)}", file=sys.stderr, flush=True)
    times.sort()
    total = +total
    print(f"{len(times)} stops, {times[len(times) // 2]:.2f} s each (median), {times[-1]:.2f} s the longest")
    for end, count in sorted(total.items()):
        print(f"{count:10,d}  {end}")
    wrong = [end for end in total if end.isupper() or end.startswith("LOST")]
    print("\n".join(unclean) or "every exit code is 0, and no server says that it abandoned a job")
    print("every job has its answer or its refusal, every request its reply" if not wrong else "BROKEN")
    return 1 if wrong or unclean else 0


if __name__ == "__main__":
    sys.exit(main())
