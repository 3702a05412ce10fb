"""Roboflow's inference SDK, current and before 1.0, and supervision, from their packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.doors.clients import environments
from tests.doors.clients.conftest import Doors

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.timeout(900)]
VERSIONS = ("1", "0")  # of the API


@pytest.fixture(scope="module", params=[environments.roboflow, environments.roboflow_before_1])
def told(request: pytest.FixtureRequest, doors: Doors, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return request.param().told("roboflow_client.py", tmp_path_factory.mktemp("sdk"), doors.http, str(pictures))


@pytest.mark.parametrize("version", VERSIONS)
def test_objects(told: Any, version: str) -> None:
    found = told[version]
    assert found["one"] == found["array"] == found["async"] == ["cup"]
    assert found["list"] == [["cup"], ["person"], ["cup"]]
    assert found["async list"] == 5
    assert found["none"] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_supervision_reads_the_answers(told: Any, version: str) -> None:
    ((box,), names) = told[version]["boxes"]
    assert names == ["cup"]
    assert box == pytest.approx([150, 10, 425, 397], abs=15)
    assert told[version]["masks"] == [[1, 512, 512], True]
    assert told[version]["points"] == [1, 17, 2]


@pytest.mark.parametrize("version", VERSIONS)
def test_classes(told: Any, version: str) -> None:
    top, confidence, is_a_cat = told[version]["top"]
    assert top
    assert 0.01 < confidence <= 1
    assert is_a_cat


@pytest.mark.parametrize("version", VERSIONS)
def test_refusals(told: Any, version: str) -> None:
    assert told[version]["refused"].startswith("404 no model 'nobody")


def test_version_1_tells_what_is_served(told: Any) -> None:
    found = told["1"]
    assert found["name"] == "parallel-infer"
    assert found["models"]["coco/3"] == found["models"]["detector/1"] == "object-detection"
    assert found["models"]["segmenter/1"] == "instance-segmentation"
    assert found["models"]["classifier/1"] == "classification"
    assert found["models"]["pose/1"] == "keypoint-detection"
    assert found["description"] == 416
    assert found["default"] == found["alias"] == ["cup"]
    assert found["configured"] == [["person"], True]
    assert found["unload"].startswith("404 no model 'nobody'")
    assert "@" not in found["unload"]


def test_version_0_draws(told: Any) -> None:
    assert told["0"]["json"] == [False, True]
    assert told["0"]["image"][0]
    assert told["0"]["image_and_json"] == [True, True]
