"""Videos made from the shipped pictures, and sources that misbehave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tests.video.mjpeg import CameraServer, Play

FRAMES = 30
HEIGHT, WIDTH = 240, 320

Frame = npt.NDArray[np.uint8]
PlayCamera = Callable[[Play], CameraServer]


def moving_crops(picture: Frame, count: int, height: int = HEIGHT, width: int = WIDTH) -> Iterator[Frame]:
    for number in range(count):
        top, left = 2 * number % (picture.shape[0] - height), 3 * number % (picture.shape[1] - width)
        yield np.ascontiguousarray(picture[top : top + height, left : left + width])


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """A recording of 30 frames of 320x240, 25 per second."""
    path = tmp_path_factory.mktemp("video") / "street.mp4"
    picture = cv2.imread(str(pictures / "astronaut.png"))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (WIDTH, HEIGHT))
    for frame in moving_crops(picture, FRAMES):
        writer.write(frame)
    writer.release()
    return path


@pytest.fixture
def play_camera() -> Iterator[PlayCamera]:
    """Starts HTTP cameras that play a function each."""
    cameras: list[CameraServer] = []

    def play(function: Play) -> CameraServer:
        cameras.append(CameraServer(function))
        return cameras[-1]

    yield play
    for camera in cameras:
        camera.close()
