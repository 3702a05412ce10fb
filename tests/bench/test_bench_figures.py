"""From records to figures, and from two runs to ratios."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from parallel_infer.cli import bench_report as report
from parallel_infer.errors import ConfigError
from parallel_infer.tools.bench import files
from parallel_infer.tools.bench.figures import Comparison, Level, Run, Steps, bottleneck, level_of
from parallel_infer.tools.bench.generators import share_of
from parallel_infer.tools.bench.plot import draw_run
from parallel_infer.tools.bench.record import COLUMNS, Record
from parallel_infer.tools.bench.usage import Busy, Use, between
from tests.bench.measured import level, order, record, run

IDLE = Use({"decode": 0.1, "infer": 0.2}, {"gateway": 0.05, "infer-m-0": 0.2})


def figures(*records: Record, use: Use = IDLE, **fields: object) -> Level:
    return level_of(order(**fields), records, use, cores=4)


def test_records_of_several_processes_count_together() -> None:
    found = figures(record([0.010, 0.020], errors={"BAD_INPUT": 1}), record([0.030, 0.040], errors={"BAD_INPUT": 2}))

    assert (found.answers, found.per_second, found.errors) == (4, 2.0, {"BAD_INPUT": 3})
    assert found.latency_ms["p50"] == pytest.approx(25.0)
    assert found.latency_ms["max"] == pytest.approx(40.0)
    assert found.times_ms["infer"] == pytest.approx(12.5)
    assert found.times_ms["client and transport"] == pytest.approx(12.5)


def test_mean_times_add_up_to_the_mean_latency_whatever_the_server_does_between_its_stages() -> None:
    values = np.zeros((1, len(COLUMNS)), np.float32)
    for name, seconds in {"latency": 0.100, "queue": 0.010, "infer": 0.020, "total": 0.070}.items():
        values[:, COLUMNS.index(name)] = seconds
    found = figures(record([0.1], values=values.tobytes()))

    assert found.times_ms["hand-overs"] == pytest.approx(40.0)
    assert found.times_ms["client and transport"] == pytest.approx(30.0)
    assert sum(found.times_ms.values()) == pytest.approx(found.latency_ms["mean"])


def test_mean_batch_is_rows_per_run_not_per_job() -> None:
    # one run of four rows and two runs of one row: six rows in three runs
    assert figures(record([0.01] * 6, batch=[4, 4, 4, 4, 1, 1])).batch == pytest.approx(2.0)


def test_open_loop_tells_what_fell_due_and_what_was_answered() -> None:
    delays = np.array([0.0, 0.0, 0.5, 0.5], np.float32).tobytes()

    answered = record([0.01, 1.5], delays=delays, arrived=1, errors={"DEADLINE_EXCEEDED": 2})

    found = figures(answered, in_flight=0, rate=2.0)

    assert (found.offered, found.per_second, found.goodput, found.name) == (2.0, 0.5, 0.5, "2/s")
    assert any("faster than they were answered" in warning for warning in found.warnings)
    assert found.late_ms == pytest.approx(500)
    assert any("sent" in warning for warning in figures(record([0.01], delays=delays), rate=2.0).warnings)


def test_without_answers_there_are_no_latencies() -> None:
    found = figures(record([], errors={"SERVER_UNAVAILABLE": 3}))

    assert (found.answers, found.per_second, found.latency_ms, found.times_ms, found.batch) == (0, 0.0, {}, {}, 0.0)


def test_a_busy_load_process_is_told() -> None:
    assert figures(record([0.01])).warnings == ()
    assert "--processes" in figures(record([0.01]), record([0.01], processor_share=0.95)).warnings[0]


@pytest.mark.parametrize(
    ("use", "generator", "expected"),
    [
        (IDLE, 0.1, "none"),
        (Use({"decode": 0.5, "infer": 0.97}, {}), 0.1, "infer, busy for 97%"),
        (Use({"decode": 0.5, "infer": 0.6}, {"gateway": 0.92}), 0.1, "gateway, busy for 92%"),
        (Use({"infer": 0.6}, {}), 0.99, "load generator, busy for 99%"),
        (Use({"infer": 0.5}, {"infer-m-0": 3.9}), 0.1, "all 4 cores are busy"),
        (Use({}, {}), 0.2, "none"),
    ],
)
def test_bottleneck_is_what_is_busiest(use: Use, generator: float, expected: str) -> None:
    assert expected in bottleneck(use, generator, 4)


def test_use_is_the_difference_of_two_looks() -> None:
    first = Busy(10.0, {"decode": (4.0, 2), "infer": (5.0, 1)}, {"gateway": 1.0})
    second = Busy(12.0, {"decode": (6.0, 2), "infer": (1.0, 1)}, {"gateway": 2.0, "decode-9": 0.5})

    use = between(first, second)

    assert use.stages == {"decode": 0.5}  # the infer worker was replaced: its seconds began anew
    assert use.processes == {"gateway": 0.5}


@pytest.mark.parametrize(("in_flight", "count"), [(10, 3), (2, 4), (1, 1)])
def test_shares_of_load_processes_add_up(in_flight: int, count: int) -> None:
    shares = [share_of(order(in_flight=in_flight, rate=30.0, seed=7), number, count) for number in range(count)]

    assert sum(share.in_flight for share in shares) == in_flight
    assert sum(share.rate for share in shares) == pytest.approx(30.0)
    assert len({share.seed for share in shares}) == count


def test_a_saved_run_is_read_back(tmp_path: Path) -> None:
    saved = run(level(), level(in_flight=0, rate=50.0), comparison=comparison())

    files.save_run(tmp_path / "run.json", saved)

    assert files.read_run(tmp_path / "run.json") == saved
    assert json.loads((tmp_path / "run.json").read_text())["origin"]["cores"] == 4
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"levels": 3}')

    with pytest.raises(ConfigError, match="--save"):
        files.read_run(tmp_path / "run.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        files.read_run(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="cannot be written"):
        files.save_run(tmp_path / "no folder" / "run.json", run())


def test_baseline_prints_ratios_of_the_same_loads(capsys: pytest.CaptureFixture[str]) -> None:
    here = run(level(per_second=150.0), level(in_flight=32))

    report.print_baseline(here, run(level(per_second=100.0)))

    text = capsys.readouterr().out
    assert "8 in flight" in text
    assert "1.50" in text
    assert "32 in flight" not in text
    assert "warning" not in text


def test_baseline_warns_of_another_machine_versions_and_settings(capsys: pytest.CaptureFixture[str]) -> None:
    here = run(level())
    there = msgspec.structs.replace(
        here,
        origin=msgspec.structs.replace(here.origin, processor="Two", packages={"numpy": "0.1"}),
        settings={"seconds": 9.0},
        provider="openvino bf16 (cpu)",
    )

    report.print_baseline(here, there)

    text = capsys.readouterr().out
    for words in ("processor: One here, Two there", "numpy:", "seconds: 2.0 here, 9.0 there", "openvino"):
        assert words in text


def comparison(**fields: object) -> Comparison:
    known: dict[str, object] = {
        "in_flight": 8,
        "rounds": 3,
        "batch": 8,
        "threads": 4,
        "provider": "cpu fp32 (cpu)",
        "pipeline": 300.0,
        "single": 100.0,
        "batched": 150.0,
        "spread": {"pipeline": (290.0, 310.0), "single": (99.0, 101.0), "batched": (149.0, 151.0)},
        "steps": Steps(decode=3.0, infer=6.5, postprocess=0.5),
        "cores": 4,
    }
    return Comparison(**(known | fields))  # type: ignore[arg-type]


def test_comparison_tells_ratio_and_ceiling(capsys: pytest.CaptureFixture[str]) -> None:
    found = comparison()

    report.print_comparison(found)

    text = capsys.readouterr().out
    assert found.ceiling == pytest.approx(400.0)
    assert "2.00 times as fast as the better loop" in text
    assert "reaches 75% of it" in text


def test_no_ceiling_where_the_device_is_no_processor(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_comparison(comparison(steps=None))

    assert "no ceiling" in capsys.readouterr().out


@pytest.mark.parametrize("levels", [1, 2, 5])
def test_plot_is_a_picture_with_every_line(levels: int) -> None:
    drawn = run(*(level(in_flight=2**n, per_second=100.0 * (n + 1)) for n in range(levels)), comparison=comparison())

    picture = decoded(drawn)

    assert picture.shape == (560, 1200, 3)
    left, right = picture[:, :600], picture[:, 600:]
    blue, orange, green = (180, 119, 31), (14, 127, 255), (44, 160, 44)
    for half in (left, right):
        for color in (blue, orange, green):
            assert (np.abs(half.astype(int) - color).max(axis=2) < 8).sum() > 20


def test_plot_of_a_run_without_answers() -> None:
    assert decoded(run(level(answers=0, per_second=0.0, latency_ms={}))).shape == (560, 1200, 3)


def decoded(drawn: Run) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(draw_run(drawn), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return picture


def test_without_matplotlib_an_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install 'parallel-infer\[plot\]'"):
        draw_run(run(level()))
