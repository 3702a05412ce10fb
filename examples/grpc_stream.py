"""Many pictures over one gRPC stream, a few of them under way at a time: print how many objects are in each.

    pip install 'tritonclient[grpc]'
    python grpc_stream.py FOLDER --model detector --address 127.0.0.1:8001

Answers come as they are ready, in no order; `request_id` says which picture one belongs to.
"""

from __future__ import annotations

import argparse
import queue
import threading
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
PATIENCE = 60  # seconds for one answer


def request(picture: bytes) -> list[Any]:
    """The input of one request."""
    image = triton.InferInput("image", [1, 1], "BYTES")
    image.set_data_from_numpy(np.array([[picture]], object))
    return [image]


def main() -> int:
    parser = argparse.ArgumentParser(description="Count objects in a folder of pictures.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="detector")
    parser.add_argument("--address", default="127.0.0.1:8001")
    parser.add_argument("--confidence", type=float, default=0.4)
    parser.add_argument("--in-flight", type=int, default=16)
    given = parser.parse_args()

    paths = sorted(path for path in given.folder.iterdir() if path.suffix.lower() in PICTURES)
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    room = threading.Semaphore(given.in_flight)

    def answered(result: Any, error: Any) -> None:
        answers.put((result, error))
        room.release()

    def send() -> None:
        for number, path in enumerate(paths):
            room.acquire()
            client.async_stream_infer(
                f"{given.model}.picture",
                request(path.read_bytes()),
                request_id=str(number),
                outputs=[triton.InferRequestedOutput("num_detections")],
                parameters={"confidence": given.confidence},
            )

    failed = 0
    with triton.InferenceServerClient(given.address) as client:
        client.start_stream(answered)
        threading.Thread(target=send, daemon=True).start()
        for _ in paths:
            result, error = answers.get(timeout=PATIENCE)
            if error is not None:
                failed += 1
                print(error)
                continue
            path = paths[int(result.get_response().id)]
            print(f"{path}: {result.as_numpy('num_detections').item()}")
        client.stop_stream()
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
