"""The whole client side in one file: send a picture, print what was found.

Needs only pyzmq and msgpack, and is a start for a client in any language that has ZeroMQ and MessagePack:

    python minimal_client.py street.jpg --model detector --address tcp://127.0.0.1:5555
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import msgpack
import zmq

TIMEOUT = 5  # seconds


def infer(address: str, model: str, picture: bytes) -> dict[str, Any]:
    """Send one picture; returns the reply, whose `type` is "answer" or "error"."""
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.connect(address)
        header = {"v": 1, "type": "infer", "id": 1, "model": model, "timeout": TIMEOUT, "format": "objects"}
        socket.send_multipart([msgpack.packb(header), picture])
        if not socket.poll(TIMEOUT * 1000):
            return {"type": "error", "code": "SERVER_UNAVAILABLE", "message": f"nobody answers at {address}"}
        reply: dict[str, Any] = msgpack.unpackb(socket.recv_multipart()[0])
        return reply


def main() -> None:
    parser = argparse.ArgumentParser(description="Send a picture, print what was found.")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--model", default="detector")
    parser.add_argument("--address", default="tcp://127.0.0.1:5555")
    given = parser.parse_args()
    reply = infer(given.address, given.model, given.picture.read_bytes())
    if reply["type"] == "error":
        sys.exit(f"{reply['code']}: {reply['message']}")
    for found in reply["answer"]["predictions"]:
        place = "at {x:.0f}, {y:.0f}, {width:.0f} x {height:.0f} pixels".format(**found) if "x" in found else ""
        print(f"{found['confidence']:.2f} {found['class']} {place}".rstrip())


if __name__ == "__main__":
    main()
