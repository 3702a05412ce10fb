"""Too little shared memory: which limits are lowered when that is asked for, and that nothing is said wrongly."""

from __future__ import annotations

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from parallel_infer.cli import main
from parallel_infer.config.engine_schema import USUAL_BATCH
from parallel_infer.config.schema import ModelConfig, ServerConfig
from parallel_infer.config.sources import zoo_models
from parallel_infer.errors import ConfigError
from parallel_infer.supervisor.fit import LOWERED, fit, what_was_lowered
from parallel_infer.supervisor.memory_report import SharedMemory, check_memory
from parallel_infer.supervisor.plan import Plan, make_plan

MB = 1 << 20
DOCKERS = SharedMemory(64 * MB, 64 * MB)
ASKED = ServerConfig(models=zoo_models(), fit_shared_memory=True, decode_workers=1, postprocess_workers=1)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(ASKED)


def lowered(config: ServerConfig) -> dict[str, float]:
    return {name: getattr(config, name) for name in LOWERED if getattr(config, name) != getattr(ASKED, name)}


def test_what_fits_stays_as_it_is(plan: Plan) -> None:
    assert fit(ASKED, plan, SharedMemory(plan.total, plan.total)) == (ASKED, plan)


def test_nothing_is_lowered_unasked(plan: Plan) -> None:
    silent = msgspec.structs.replace(ASKED, fit_shared_memory=False)
    assert fit(silent, plan, DOCKERS) == (silent, plan)
    with pytest.raises(ConfigError, match="not enough shared memory"):
        check_memory(plan, DOCKERS)


def test_the_shipped_models_fit_into_what_docker_gives(plan: Plan) -> None:
    config, fitting = fit(ASKED, plan, DOCKERS)
    check_memory(fitting, DOCKERS)
    assert config.max_payload_mb == ASKED.max_payload_mb
    text = what_was_lowered(ASKED, config, plan, DOCKERS)
    assert f"max_batch_size={config.max_batch_size} instead of 8" in text
    assert f"shared_memory_mb={config.shared_memory_mb} instead of 256" in text
    assert "fit_shared_memory" in text
    assert "--shm-size=" in text
    assert "--fit-shared-memory" not in text  # it is said already


def test_payload_memory_goes_before_batches_become_single(plan: Plan) -> None:
    config, _ = fit(ASKED, plan, SharedMemory(300 * MB, 300 * MB))
    assert set(lowered(config)) == {"shared_memory_mb"}


def test_the_largest_payload_is_lowered_last(plan: Plan) -> None:
    config, fitting = fit(ASKED, plan, SharedMemory(48 * MB, 40 * MB))
    assert fitting.total <= 40 * MB
    assert lowered(config).keys() == set(LOWERED)
    assert config.max_payload_mb < ASKED.max_payload_mb


def test_where_nothing_fits_it_is_refused_with_what_was_asked_for(plan: Plan) -> None:
    tiny = SharedMemory(4 * MB, 4 * MB)
    assert fit(ASKED, plan, tiny) == (ASKED, plan)


def test_a_preferred_batch_is_not_undercut(plan: Plan) -> None:
    models = {**ASKED.models, "detector": ModelConfig(path=ASKED.models["detector"].path, preferred_batch_size=4)}
    config, _ = fit(msgspec.structs.replace(ASKED, models=models), plan, DOCKERS)
    assert (config.max_batch_size or USUAL_BATCH) >= 4


@given(st.integers(0, 500))
def test_whatever_is_lowered_fits(plan: Plan, megabytes: int) -> None:
    memory = SharedMemory(600 * MB, megabytes * MB)
    config, fitting = fit(ASKED, plan, memory)
    assert (config is ASKED and fitting is plan) or fitting.total <= memory.free
    assert config.max_payload_mb <= config.shared_memory_mb


def test_a_dry_run_tells_what_would_be_lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parallel_infer.cli.serve.shared_memory", lambda: DOCKERS)
    arguments = ["serve", "--dry-run", "--fit-shared-memory", "--model", "p=zoo:pose"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0
    assert "warning: " in result.stderr
    assert "--shm-size=" in result.stderr
