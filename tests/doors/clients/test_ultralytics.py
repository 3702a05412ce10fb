"""Ultralytics with the server's models, from its package, in an environment of its own (its licence is AGPL)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.doors.clients import environments
from tests.doors.clients.conftest import Doors

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def told(doors: Doors, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What it found over HTTP, and over gRPC."""
    environment = environments.ultralytics()
    folder = tmp_path_factory.mktemp("ultralytics")
    told = environment.told("ultralytics_client.py", folder, doors.http, doors.grpc, str(pictures))
    return list(told.values())


def test_detect(told: list[Any]) -> None:
    assert [found[0] for found in told] == [[["person"], ["person"]]] * 2


def test_segment(told: list[Any]) -> None:
    assert [found[1] for found in told] == [[["person"], [1, 416, 416]]] * 2


def test_classify(told: list[Any]) -> None:
    assert told[0][2] == told[1][2]
    assert told[0][2][0] in ("tabby cat", "tiger cat", "Egyptian Mau")
