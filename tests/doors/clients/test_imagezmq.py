"""imagezmq's sender, from its package: raw frames, JPEGs, grey frames, many cameras at a time."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.doors.clients.conftest import Doors

pytestmark = pytest.mark.clients
imagezmq = pytest.importorskip("imagezmq", reason="imagezmq is not installed")


def classes(reply: bytes) -> list[str]:
    return [found["class"] for found in json.loads(reply)["predictions"]]


def test_frames_of_every_kind(doors: Doors, pictures: Path) -> None:
    frame = cv2.imread(str(pictures / "coffee.png"))
    with imagezmq.ImageSender(connect_to=doors.imagezmq) as sender:
        assert "cup" in classes(sender.send_image("door", frame))
        assert "cup" in classes(sender.send_image({"camera": 1, "note": "any JSON"}, frame))
        assert "cup" in classes(sender.send_jpg("door", cv2.imencode(".jpg", frame)[1]))
        assert "cup" in classes(sender.send_jpg("door", cv2.imencode(".jpg", frame)[1].tobytes()))
        grey = json.loads(sender.send_image("door", cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)))
        assert grey["image"] == {"width": 600, "height": 400}
        assert "cup" in classes(sender.send_image("door", np.asfortranarray(frame)))  # not contiguous


def test_a_frame_that_is_refused_is_answered_and_the_next_one_too(doors: Doors, pictures: Path) -> None:
    with imagezmq.ImageSender(connect_to=doors.imagezmq) as sender:
        for bad in (np.zeros((3, 4, 5), np.uint8), np.zeros((3, 4, 3), np.float32)):
            refused = json.loads(sender.send_image("door", bad))
            assert refused["code"] == "BAD_INPUT"
            assert "uint8 [h, w, 3]" in refused["error"]
        assert json.loads(sender.send_jpg("door", b"no picture"))["code"] == "BAD_INPUT"
        assert "cup" in classes(sender.send_image("door", cv2.imread(str(pictures / "coffee.png"))))


def test_cameras_get_each_their_own(doors: Doors, pictures: Path) -> None:
    frames = {name: cv2.imread(str(pictures / f"{name}.png")) for name in ("coffee", "astronaut")}

    def look(name: str) -> list[Any]:
        with imagezmq.ImageSender(connect_to=doors.imagezmq) as sender:
            return [json.loads(sender.send_image(name, frames[name]))["image"]["width"] for _ in range(3)]

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(look, ["coffee", "astronaut"] * 2))
    assert found == [[600] * 3, [512] * 3] * 2
