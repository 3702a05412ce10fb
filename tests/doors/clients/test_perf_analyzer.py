"""perf_analyzer, the program in tritonclient's wheel, in the ways of sending that it has."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

from tests.doors.clients import environments
from tests.doors.clients.conftest import Doors

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.timeout(900)]
ENOUGH = "--measurement-mode count_windows --measurement-request-count 10 -s 9999"  # busy machines are never stable


@pytest.mark.parametrize(
    "how",
    [
        "-u HTTP -m classifier --async --concurrency-range 2",
        "-u HTTP -m classifier --request-rate-range 20",
        "-u HTTP -m classifier --input-tensor-format json --output-tensor-format json --concurrency-range 1",
        "-u HTTP -m pose --concurrency-range 2",
        "-u HTTP -m detector.picture --input-data pictures.json --concurrency-range 2",
        "-i grpc -u GRPC -m classifier -b 3 --async --concurrency-range 2",
        "-i grpc -u GRPC -m classifier --streaming --concurrency-range 2",
        "-i grpc -u GRPC -m classifier --grpc-compression-algorithm gzip --concurrency-range 2",
        "-i grpc -u GRPC -m detector.picture --input-data pictures.json --streaming --concurrency-range 2",
    ],
)
def test_it_measures(doors: Doors, pictures: Path, tmp_path: Path, how: str) -> None:
    encoded = base64.b64encode((pictures / "coffee.png").read_bytes()).decode()
    data = {"data": [{"image": {"content": {"b64": encoded}, "shape": [1]}}]}
    (tmp_path / "pictures.json").write_text(json.dumps(data))
    arguments = how.replace("HTTP", doors.http).replace("GRPC", doors.grpc)
    printed = environments.perf_analyzer().shell(f"perf_analyzer {arguments} {ENOUGH}", tmp_path)
    assert re.search(r"throughput: [\d.]*[1-9]", printed), printed


def test_shared_memory_is_refused(doors: Doors, tmp_path: Path) -> None:
    refused = f"! perf_analyzer -u {doors.http} -m classifier --shared-memory system 2>&1"
    printed = environments.perf_analyzer().shell(refused, tmp_path)
    assert "there is nothing at '/v2/systemsharedmemory/" in printed
