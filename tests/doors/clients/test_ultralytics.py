"""Ultralytics with the server's models, from its package, in an environment of its own (its licence is AGPL)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.doors.clients import environments
from tests.doors.clients.conftest import Doors
from tests.families.tiny_graphs import CELLS, saved, tiny, zeros

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.timeout(900)]
KEYPOINTS = np.stack([np.linspace(25, 40, 17), np.linspace(12, 48, 17), np.full(17, 0.8)], 1).astype(np.float32)


def people() -> onnx.ModelProto:
    """YOLO's head for poses, which finds one person wherever it looks."""
    output = zeros(4 + 1 + 17 * 3, CELLS)
    output[:5, 10] = (32, 30, 20, 40, 0.9)
    output[5:, 10] = KEYPOINTS.reshape(-1)
    properties = {"task": "pose", "names": "{0: 'person'}", "imgsz": "[64, 64]", "kpt_shape": "[17, 3]", "stride": "32"}
    return tiny({"output0": output}, metadata=properties)


def ships() -> onnx.ModelProto:
    """YOLO's head for rotated boxes."""
    output = zeros(4 + 2 + 1, CELLS)
    output[:, 10] = (32, 30, 40, 20, 0.1, 0.8, 0.3)
    properties = {"task": "obb", "names": "{0: 'plane', 1: 'ship'}", "imgsz": "[64, 64]", "stride": "32"}
    return tiny({"output0": output}, metadata=properties)


@pytest.fixture(scope="module")
def told(doors: Doors, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What it found over HTTP, and over gRPC."""
    environment = environments.ultralytics()
    folder = tmp_path_factory.mktemp("ultralytics")
    with doors.server.client() as client:
        for name, graph in (("people", people()), ("ships", ships())):
            (folder / name).mkdir()
            client.load(name, str(saved(graph, folder / name)))
    told = environment.told("ultralytics_client.py", folder, doors.http, doors.grpc, str(pictures))
    return list(told.values())


def test_detect(told: list[Any]) -> None:
    assert [found[0] for found in told] == [[["person"], ["person"]]] * 2


def test_segment(told: list[Any]) -> None:
    assert [found[1] for found in told] == [[["person"], [1, 416, 416]]] * 2


def test_classify(told: list[Any]) -> None:
    assert told[0][2] == told[1][2]
    assert told[0][2][0] in ("tabby cat", "tiger cat", "Egyptian Mau")


def test_pose(told: list[Any]) -> None:
    for found in told:
        ((box,), (points,)) = found[3]
        assert box == pytest.approx([22, 10, 42, 50], abs=0.1)
        np.testing.assert_allclose(points, KEYPOINTS, atol=0.1)


def test_rotated_boxes(told: list[Any]) -> None:
    for found in told:
        ((box,), names) = found[4]
        assert names == ["ship"]
        assert box == pytest.approx([32, 30, 40, 20, 0.3], abs=0.1)
