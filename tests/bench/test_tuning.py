"""The search with measurements that are made up, the file it writes, and one real trial."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from parallel_infer.cli import main
from parallel_infer.config.sources import load_config
from parallel_infer.machine.cores import usable_cores
from parallel_infer.tools.bench.measure import Demand
from parallel_infer.tools.bench.payloads import shipped_pictures
from parallel_infer.tools.tuning.machine_space import available, default_settings
from parallel_infer.tools.tuning.search import (
    LatencyLimit,
    Outcome,
    Throughput,
    Trial,
    beats,
    explore,
    finalists,
    winner,
)
from parallel_infer.tools.tuning.settings import Settings, Space, to_toml
from parallel_infer.tools.tuning.trials import Subject

BASE = Settings("cpu", "fp32", 1, 4, 8, 2)
SPACE = Space(4, [("cpu", "fp32"), ("openvino", "bf16")], fixed_batch=False)
THROUGHPUT = Throughput()


def outcomes(rates: Iterable[float], p99: float = 10.0) -> list[Outcome]:
    return [Outcome(rate, p99, 32) for rate in rates]


def trial(settings: Settings, rates: Iterable[float]) -> Trial:
    rounds = outcomes(rates)
    return Trial(settings, rounds[0], rounds)


def test_search_begins_with_the_default_and_keeps_what_helps() -> None:
    asked: list[Settings] = []

    def measure(settings: Settings) -> Outcome:
        asked.append(settings)
        gain = (settings.instances == 2) + (settings.max_batch_size == 4)
        return Outcome(100.0 + 10 * gain, 10.0, 32)

    trials = explore(BASE, SPACE.axes(), measure, THROUGHPUT)

    assert asked[0] == trials[0].settings == BASE
    assert len(asked) == len(set(asked))  # nothing is measured twice
    best = max(trials, key=lambda found: found.first.per_second).settings
    assert (best.instances, best.max_batch_size) == (2, 4)


def test_settings_that_fail_never_win() -> None:
    def measure(settings: Settings) -> Outcome:
        return Outcome(100.0, 10.0, 32) if settings == BASE else Outcome(failure="no memory")

    trials = explore(BASE, SPACE.axes(), measure, THROUGHPUT)

    assert len(trials) > 5
    assert finalists(trials, THROUGHPUT) == trials[:1]


def test_finals_hold_the_default_even_where_it_looked_worst() -> None:
    trials = [trial(replace(BASE, instances=number), [100.0 + number]) for number in range(1, 6)]

    finals = finalists(trials, THROUGHPUT)

    assert [found.settings.instances for found in finals] == [1, 5, 4]


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([120.0, 121.0, 119.0], True),
        ([120.0, 121.0, 99.0], False),  # one round is not better
        ([101.0, 102.0, 103.0], False),  # better, but by too little
        ([90.0, 80.0, 70.0], False),
    ],
)
def test_only_what_is_better_in_every_round_and_by_enough_beats_the_default(rates: list[float], expected: bool) -> None:
    base, other = trial(BASE, [100.0, 100.5, 100.0]), trial(replace(BASE, instances=2), rates)

    assert beats(other, base, THROUGHPUT) is expected
    assert winner([base, other], THROUGHPUT) is (other if expected else base)


def test_without_rounds_the_default_stays() -> None:
    base = Trial(BASE, Outcome(1.0, 1.0, 1))

    assert winner([base], THROUGHPUT) is base


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (Outcome(50, 40, 4), Outcome(500, 60, 32)),  # keeps the limit
        (Outcome(60, 40, 4), Outcome(50, 10, 4)),  # both do: throughput decides
        (Outcome(50, 60, 4), Outcome(500, 80, 32)),  # none does: the lower latency
        (Outcome(50, 600, 4), Outcome(failure="no memory")),
    ],
)
def test_latency_limit(better: Outcome, worse: Outcome) -> None:
    goal = LatencyLimit(50.0)

    assert goal.score(better) > goal.score(worse)


def test_space_stays_within_the_machine() -> None:
    for axis in SPACE.axes():
        for settings in axis(BASE):
            assert settings.threads >= 1
            assert settings.decode_workers <= 4
            assert settings.instances <= 4
    assert Space(4, (), fixed_batch=True).batches not in Space(4, (), fixed_batch=True).axes()


def test_written_settings_are_loaded_by_serve(tmp_path: Path) -> None:
    tuned = replace(BASE, instances=2, threads=2, decode_workers=3, precision="bf16", provider="openvino")
    file = tmp_path / "tuned.toml"
    file.write_text(to_toml("my.model", "zoo:classifier", tuned.differences(BASE), ["120 pictures/s"]))

    config = load_config({}, file, {})

    model = config.models["my.model"]
    assert (model.instances, model.threads, model.provider, model.precision) == (2, 2, "openvino", "bf16")
    assert config.decode_workers == 3
    assert model.max_batch_size is None  # as in the default, so not written


def test_default_settings_of_a_model() -> None:
    base, space = default_settings(load_config({"models": ["c=zoo:classifier"], "provider": "cpu"}, None, {}))

    found = base.provider, base.precision, base.instances, base.max_batch_size
    assert found == ("cpu", "fp32", min(2, usable_cores()), 8)
    assert not space.fixed_batch
    assert available(("cpu",)) == [("cpu", "fp32")]


def test_trials_run_or_tell_why_not(zoo: Path) -> None:
    with shipped_pictures() as folder:
        subject = Subject("c", str(zoo / "classifier.onnx"), str(folder), Demand(in_flight=4, seconds=0.3), 10_000.0)
        base = Settings("cpu", "fp32", 1, 1, 4, 1)

        good = subject.measure(base)
        bad = subject.measure(replace(base, provider="tensorrt"))

    assert not good.failure
    assert good.per_second > 0
    assert good.in_flight == 4
    assert "tensorrt" in bad.failure
    assert "ERROR" not in bad.failure
    assert not bad.per_second


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_command_writes_what_serve_loads(tmp_path: Path) -> None:
    file = tmp_path / "tuned.toml"
    words = ["tune", "zoo:classifier", "--provider", "cpu", "--seconds", "0.3", "--concurrency", "4", "--rounds", "2"]

    result = CliRunner().invoke(main, [*words, "--output", str(file), "--json"])

    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    rates = {json.dumps(trial["settings"]): trial["per_second"] for trial in report["trials"]}
    assert rates[json.dumps(report["chosen"])] >= rates[json.dumps(report["default"])]
    config = load_config({}, file, {})
    assert list(config.models) == ["classifier"]
