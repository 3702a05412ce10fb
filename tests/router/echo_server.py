"""A member without models or workers, in a process of its own: it answers each job with its payload after a while.

    python echo_server.py ADDRESS SECONDS [MODEL ...]

Prints its address when it listens. It takes any number of jobs at once.
"""

import heapq
import sys
import time
from secrets import token_hex

import msgpack
import zmq


def main(address: str, seconds: float, models: list[str]) -> None:
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.bind(address)
    print(socket.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0"), flush=True)
    instance = token_hex(8)
    due: list[tuple[float, int, list[bytes]]] = []
    count = 0
    while True:
        wait = None if not due else max(0.0, due[0][0] - time.monotonic()) * 1000
        if socket.poll(wait):
            client, header, *payload = socket.recv_multipart()
            request = msgpack.unpackb(header) if header else {"type": ""}
            reply = {"v": 1, "id": request.get("id"), "type": "result", "result": {}}
            if request["type"] == "infer":
                count += 1
                size = len(payload[0])
                answer = {"task": "tensor", "model": request["model"], "arrays": [["y", "uint8", [size]]]}
                reply |= {"type": "answer", "answer": answer, "timing": {}, "batch": 1}
                heapq.heappush(due, (time.monotonic() + seconds, count, [client, msgpack.packb(reply), *payload]))
                continue
            if request["type"] in ("", "cancel"):
                continue
            if request["type"] == "hello":
                reply["result"] = {"max_payload": 32 << 20, "max_message": 64 << 20, "instances": [instance]}
            elif request["type"] == "models":
                reply["result"] = [{"name": name, "digest": "", "warnings": []} for name in models]
            elif request["type"] == "ready":
                states = dict.fromkeys(models, "ready")
                reply["result"] = {"ready": True, "models": states, "states": states}
            socket.send_multipart([client, msgpack.packb(reply)])
        while due and due[0][0] <= time.monotonic():
            socket.send_multipart(heapq.heappop(due)[2])


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3:])
