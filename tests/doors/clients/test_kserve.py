"""KServe's Python clients, from their package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.doors.clients import environments
from tests.doors.clients.conftest import Doors

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.timeout(900)]
CLIENTS = ("rest", "grpc")


@pytest.fixture(scope="module")
def told(doors: Doors, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("kserve")
    picture = str(pictures / "coffee.png")
    return environments.kserve().told("kserve_client.py", folder, doors.http, doors.grpc, picture)


@pytest.mark.parametrize("client", CLIENTS)
def test_health(told: Any, client: str) -> None:
    assert [told[client][what] for what in ("live", "ready", "model")] == [True, True, True]
    assert told["rest"]["nobody"] is False


@pytest.mark.parametrize("client", CLIENTS)
def test_tensors(told: Any, zoo: Path, client: str) -> None:
    values = np.linspace(-2, 2, 3 * 224 * 224, dtype=np.float32).reshape(1, 3, 224, 224)
    session = onnxruntime.InferenceSession(zoo / "classifier.onnx", providers=["CPUExecutionProvider"])
    best = int(session.run(None, {"images": values})[0].argmax())
    assert told[client]["best"] == [best, best]  # as binary, as plain numbers


@pytest.mark.parametrize("client", CLIENTS)
def test_pictures(told: Any, client: str) -> None:
    assert [shape[0::2] for shape in told[client]["boxes"]] == [[1, 4]] * len(told[client]["boxes"])


@pytest.mark.parametrize("client", CLIENTS)
def test_refusals(told: Any, client: str) -> None:
    assert "unknown option 'confidance'; did you mean 'confidence'" in told[client]["refused"]
