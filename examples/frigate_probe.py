"""What Frigate would see: send one picture as its ZeroMQ detector does, and print the rows of the answer.

    pip install pyzmq opencv-python
    python frigate_probe.py street.jpg --model detector.onnx --size 416 --endpoint tcp://127.0.0.1:5558

Use it to try an endpoint before it goes into Frigate's configuration: it says whether the model is there, what is found
and how long it took. Frigate waits 200 ms.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import cv2
import numpy as np
import zmq

PATIENCE = 10_000  # ms


def ask(socket: Any, *frames: bytes) -> list[bytes]:
    """The reply to one request. Ends the program where none comes."""
    socket.send_multipart(frames)
    if not socket.poll(PATIENCE):
        sys.exit(f"no reply within {PATIENCE / 1000:g} s: is the server there, and started with --frigate-bind?")
    reply: list[bytes] = socket.recv_multipart()
    return reply


def main() -> int:
    parser = argparse.ArgumentParser(description="Send a picture as Frigate does, print what comes back.")
    parser.add_argument("picture")
    parser.add_argument("--model", default="detector.onnx", help="the file's name in Frigate's model.path")
    parser.add_argument("--size", type=int, default=416, help="model.width and model.height")
    parser.add_argument("--endpoint", default="tcp://127.0.0.1:5558")
    given = parser.parse_args()
    frame = cv2.imread(given.picture)
    if frame is None:
        parser.error(f"{given.picture} is no picture")
    rgb = cv2.cvtColor(cv2.resize(frame, (given.size, given.size)), cv2.COLOR_BGR2RGB)
    tensor = np.ascontiguousarray(rgb.transpose(2, 0, 1)[None], np.float32) / 255

    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.connect(given.endpoint)
        there = json.loads(ask(socket, json.dumps({"model_request": True, "model_name": given.model}).encode())[0])
        if not there["model_loaded"]:
            print(f"{given.model} is not served as a detector; Frigate would upload it")
            return 1
        header = {"shape": list(tensor.shape), "dtype": "float32", "model_type": "yologeneric"}
        started = time.monotonic()
        reply, rows = ask(socket, json.dumps(header).encode(), tensor.tobytes())
        took = time.monotonic() - started
    if "error" in json.loads(reply):
        print(json.loads(reply)["error"])
        return 1
    print(f"{1000 * took:.0f} ms")
    for kind, score, top, left, bottom, right in np.frombuffer(rows, np.float32).reshape(20, 6):
        if score > 0:
            print(f"class {kind:.0f} {score:.2f}: {left:.2f}, {top:.2f} to {right:.2f}, {bottom:.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
