from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from parallel_infer.cli import main
from parallel_infer.cli.top_screen import screen
from parallel_infer.observe.histogram import PARTS
from parallel_infer.observe.rates import ModelRates, Rates, SourceRates, StageRates, rates
from tests.engine import graphs
from tests.engine.serving import Server

PAIR = {"a": np.zeros(graphs.WIDE, np.float32), "b": np.ones(graphs.WIDE, np.float32)}


def worker(stage: str, model: str, busy: float, done: int) -> dict[str, Any]:
    return {"stage": stage, "model": model, "leases": 0, "done": done, "busy_seconds": busy}


def status(answered: int, dropped: int, batches: int, busy: float, counts: list[int]) -> dict[str, Any]:
    """What a server with one model says."""
    model = {"name": "m", "state": "ready", "queued": 3, "ready": 2, "jobs": 5, "batches": batches}
    return {
        "models": {"m": {**model, "batched_rows": answered}},
        "workers": {
            "decode-0": worker("decode", "", busy / 4, answered),
            "decode-1": worker("decode", "", busy / 4, answered),
            "infer-m-0": worker("infer", "m", busy, batches),
        },
        "dispatcher": {"cpu_seconds": busy / 10},
        "gateway": {
            "uptime": 1.0,
            "clients": 1,
            "pending": 5,
            "cpu_seconds": busy / 10,
            "models": {"m": {"ends": {"answered": answered, "DROPPED": dropped, "BAD_INPUT": dropped}}},
            "sources": {"front": {"answered": answered, "dropped": dropped, "failed": 0, "age": 0.5}},
        },
        "times": {"models": {"m": {part: {"seconds": 1.0, "counts": counts} for part in PARTS}}},
    }


BEFORE, AFTER = status(100, 10, 50, 1.0, [100]), status(300, 30, 100, 2.8, [100, 0, 0, 0, 200])


def test_rates_are_what_changed_between_two_looks() -> None:
    found = rates(BEFORE, AFTER, 2.0)
    (model,) = found.models

    assert (model.per_second, model.errors_per_second, model.mean_batch, model.waiting) == (100, 10, 4, 5)
    assert 0.00016 < model.p50 <= 0.0002
    assert model.p50 < model.p99 <= 0.0002
    assert {stage.name: round(stage.utilisation, 3) for stage in found.stages} == {
        "decode": 0.225,
        "infer": 0.9,
        "gateway": 0.09,
        "dispatcher": 0.09,
    }
    assert found.bottleneck is not None
    assert found.bottleneck.name == model.tight == "infer"
    assert found.sources == [SourceRates("front", 100, 10, 30, 0.5)]


def test_a_server_that_counts_anew_has_no_negative_rates() -> None:
    found = rates(AFTER, BEFORE, 1.0)

    assert found.models[0].per_second == 100
    assert all(stage.utilisation >= 0 for stage in found.stages)


def test_nothing_is_a_bottleneck_while_nothing_happens() -> None:
    found = rates(AFTER, AFTER, 1.0)

    assert found.bottleneck is None
    assert found.models[0].tight == ""
    assert found.models[0].p99 == 0


def drawn(found: Rates, width: int, height: int | None) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(screen(found, "tcp://127.0.0.1:5555", width, height))
    return console.file.getvalue().rstrip("\n").split("\n")  # type: ignore[attr-defined]


SIZES = [(1, 80, 24), (3, 80, 24), (40, 80, 24), (40, 200, 60), (5, 80, 12)]


def crowd(count: int) -> Rates:
    models = [
        ModelRates(f"a-rather-long-name-{number}", "unavailable", 12345.6, 99.9, 1.5, 60, 8, 99999, "postprocess")
        for number in range(count)
    ]
    stages = [StageRates("infer", model.name, 8, 1.0, 12345.6) for model in models]
    sources = [SourceRates(f"rtsp [red]{number}", 30.0, 29.9, 123456, 1234.5) for number in range(count)]
    return Rates(1.0, 360000.0, 99, 1234, models, stages, sources)


@pytest.mark.parametrize(("count", "width", "height"), SIZES)
def test_the_screen_fits(count: int, width: int, height: int) -> None:
    lines = drawn(crowd(count), width, height)

    assert len(lines) <= max(height, 14)
    assert all(len(line) <= width for line in lines)
    assert any(
        "unavailable" in line and "12345.6" in line and "99999" in line and "postprocess" in line for line in lines
    )
    assert any("100%" in line and "bottleneck" in line for line in lines)
    assert any("rtsp [red]" in line and "1234.50 s ago" in line for line in lines)
    assert ("more" in "\n".join(lines)) == (count > 3)


def test_all_is_shown_where_there_is_no_screen() -> None:
    text = "\n".join(drawn(crowd(40), 120, None))

    assert "rtsp [red]39" in text
    assert "more" not in text


def test_one_look_at_a_server(server: Server) -> None:
    with server.client() as client:
        futures = [client.submit("pair", PAIR) for _ in range(50)]
        ran = CliRunner().invoke(main, ["top", "--server", server.address, "--once", "--interval", "0.2", "--json"])
        for future in futures:
            future.result(30)
    found = json.loads(ran.output)

    assert ran.exit_code == 0
    assert {model["name"] for model in found["models"]} >= {"pair", "fixed", "work", "detector"}
    assert {stage["name"] for stage in found["stages"]} == {"decode", "infer", "postprocess", "gateway", "dispatcher"}


def test_one_look_for_people(server: Server) -> None:
    ran = CliRunner().invoke(main, ["top", "--server", server.address, "--once", "--interval", "0.1"])

    assert ran.exit_code == 0
    assert "p99 ms" in ran.output
    assert "infer detector" in ran.output


def test_without_a_terminal_there_is_no_live_table(server: Server) -> None:
    ran = CliRunner().invoke(main, ["top", "--server", server.address])

    assert ran.exit_code == 2
    assert "--once" in ran.output


def test_a_server_that_is_not_there(tmp_path: Any) -> None:
    ran = CliRunner().invoke(main, ["top", "--server", f"ipc://{tmp_path}/none", "--once"])

    assert ran.exit_code == 1
    assert "SERVER_UNAVAILABLE" in ran.output
