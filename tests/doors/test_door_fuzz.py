"""Requests that somebody spoilt get an answer or a named error at every door; `benchmarks/fuzz_doors.py` sends many."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz_doors import CALLERS
from benchmarks.fuzz_support.http_requests import HttpRequests
from benchmarks.fuzz_support.spoil import spoilt_bytes, spoilt_json
from tests.doors.door_server import Doors, ask, start
from tests.engine.serving import running, short_folder

pytest.importorskip("aiohttp", reason="the HTTP door needs the extra http")
pytest.importorskip("grpc", reason="the gRPC door needs the extra grpc")

PICTURE = Path(__file__).parents[2] / "parallel_infer" / "zoo" / "pictures" / "coffee.png"


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> None:
    """Instead of that of all tests: the shared server takes more memory as tests use more of it, and is looked at when
    it has ended."""


@pytest.fixture(scope="module")
def doors(_adopt_orphans: None) -> Iterator[Doors]:
    found = start(short_folder())
    with running(found.server):
        yield found


@pytest.mark.parametrize("door", list(CALLERS))
def test_what_is_spoilt_disturbs_nobody(doors: Doors, door: str) -> None:
    addresses = {"http": doors.http, "grpc": doors.grpc, "frigate": doors.frigate, "imagezmq": doors.imagezmq}

    @settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
    @given(st.integers(0, 2**32))
    def send(seed: int) -> None:
        outcomes = asyncio.run(CALLERS[door](addresses[door], 16, seed))
        assert outcomes.total() == 16

    send()
    status, answer = ask(doors, "/infer/detector", PICTURE.read_bytes(), Content_Type="image/png")
    assert status == 200
    assert "cup" in [found["class"] for found in answer["predictions"]]
    with doors.server.client() as client:
        processes = client.status()["processes"]
    assert not any(process["restarts"] for process in processes.values())


@given(st.integers(0, 2**32))
def test_the_same_chance_spoils_the_same(seed: int) -> None:
    made = [[HttpRequests(b"\xff\xd8\xff" * 40, Random(seed)).next() for _ in range(5)] for _ in range(2)]
    assert made[0] == made[1]
    value = {"a": [1, {"b": "c"}], "d": None}
    assert spoilt_json(value, Random(seed)) == spoilt_json(value, Random(seed))
    assert value == {"a": [1, {"b": "c"}], "d": None}
    assert spoilt_bytes(b"abcdef", Random(seed)) == spoilt_bytes(b"abcdef", Random(seed))
