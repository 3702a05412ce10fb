"""A camera, a video or a folder of pictures, sent frame by frame with imagezmq: print what is seen when it changes.

    pip install imagezmq opencv-python
    python imagezmq_camera.py 0 --name "front door" --address tcp://127.0.0.1:5559

The source is what OpenCV opens: the number of a camera, a file, a URL, or pictures as `frames/%03d.jpg`. The server
counts frames by the camera's name.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

import cv2
import imagezmq

QUALITY = 90  # of the JPEG that a frame travels as


def frames(source: str) -> Iterator[Any]:
    """Frames of a source until it ends. Raises OSError where it cannot be opened."""
    video = cv2.VideoCapture(int(source) if source.isdigit() else source)
    if not video.isOpened():
        raise OSError(f"{source} cannot be opened")
    try:
        while (read := video.read())[0]:
            yield read[1]
    finally:
        video.release()


def main() -> int:
    parser = argparse.ArgumentParser(description="Send frames, print what is seen in them.")
    parser.add_argument("source")
    parser.add_argument("--name", default="camera")
    parser.add_argument("--address", default="tcp://127.0.0.1:5559")
    given = parser.parse_args()
    seen: list[str] | None = None
    with imagezmq.ImageSender(connect_to=given.address) as sender:
        for number, frame in enumerate(frames(given.source)):
            jpeg = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
            answer = json.loads(sender.send_jpg(given.name, jpeg))
            if "error" in answer:
                print(f"frame {number}: {answer['code']}: {answer['error']}")
                return 1
            classes = sorted({found["class"] for found in answer["predictions"]})
            if classes != seen:
                seen = classes
                print(f"frame {number}: {', '.join(classes) or 'nothing'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
