"""Trials with real processes and pipes; stages that sleep stand in for models, so that what is faster is certain."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from parallel_infer.config.schema import ModelConfig, ServerConfig
from parallel_infer.ipc.messages import ModelPlan
from parallel_infer.model_spec import ModelSpec, TensorSpec
from parallel_infer.supervisor.plan import plan_model
from parallel_infer.trial.settings import Choice, Mix, Setting
from parallel_infer.trial.stand import Stand, Told
from parallel_infer.trial.trial import Found, run_trial
from parallel_infer.trial.verdict import Unusable
from parallel_infer.trial.worker import Code
from tests.trial import trial_stages as stages

HERE = stages.__name__
PATIENCE = 60.0  # seconds; a trial that finds what it looks for is over much earlier
ROUND = 0.05
TENSOR = (TensorSpec("x", "float32", (4,)),)
SPEC = ModelSpec(name="m", path="m.onnx", task="tensor", family="tensor", inputs=TENSOR, outputs=TENSOR)
CONFIG = ServerConfig(models={"m": ModelConfig(path="m.onnx")}, provider="cpu")


def made(setting: Setting) -> ModelPlan:
    return plan_model(CONFIG, CONFIG.models["m"], SPEC, "s-{}".format, 1, 1, chosen=setting)


def told(folder: Path, default: Mix, policy: str = "single") -> Told:
    code = Code(f"{HERE}:Infer", f"{HERE}:Decode", f"{HERE}:{policy}")
    return Told(folder / "trial", code, [made] * len(default), default, 1, ROUND, "text", "info")


def setting(threads: int, instances: int = 1, batch: int = 1) -> Setting:
    return Setting(instances, threads, batch)


measured = partial(Stand.measure, seconds=ROUND)


def test_rates_are_of_all_instances_and_models_that_die_are_named_and_leave_the_others_alone(tmp_path: Path) -> None:
    default = (setting(1),)
    with Stand(told(tmp_path, default), PATIENCE) as stand:
        (slow,), (quick,) = measured(stand, default), measured(stand, (setting(stages.QUICK),))
        assert 0 < slow <= 1 / stages.SLOW < quick
        (both,) = measured(stand, (setting(1, instances=2),))
        assert both > slow
        with pytest.raises(Unusable, match=r"its process ended \(exit code 9\)"):
            measured(stand, (setting(stages.DIES_LOADING),))
        with pytest.raises(Unusable, match="not enough memory"):
            measured(stand, (setting(stages.REFUSES),))
        with pytest.raises(Unusable, match=r"its process ended \(exit code 9\)"):
            measured(stand, (setting(stages.DIES_RUNNING),))
        assert stand.targets(default) == [1]  # whose process it was, too
        assert measured(stand, default)[0] > 0
    assert list(tmp_path.iterdir()) == []


def test_models_that_are_served_together_are_measured_together(tmp_path: Path) -> None:
    mix = (setting(1), setting(stages.QUICK))
    with Stand(told(tmp_path, mix), PATIENCE) as stand:
        slow, quick = measured(stand, mix)
        assert 0 < slow < quick


def found(folder: Path, choice: Choice, cores: int, policy: str = "single", seconds: float = PATIENCE) -> Found:
    return run_trial(told(folder, (choice.default,), policy), [choice], cores, 1 << 40, seconds)


def test_the_faster_setting_is_chosen(tmp_path: Path) -> None:
    """Of six cores: six threads are the only quick ones; settings that do not run are named."""
    choice = Choice(setting(2, instances=3), instances=True, threads=True, max_batch=False, gpus=0)
    result = found(tmp_path, choice, 6)
    assert result.chosen[0].threads == stages.QUICK
    assert result.rate > result.default_rate > 0
    assert result.gain == pytest.approx(result.rate / result.default_rate)
    assert {text: why.partition(" (")[0] for text, why in result.unusable.items()} == {
        "2 x 3, batch 1": "its process ended",
        "1 x 5, batch 1": "there is not enough memory; allow this process more",
    }


def test_a_default_that_dies_is_no_trial(tmp_path: Path) -> None:
    choice = Choice(setting(stages.DIES_RUNNING), instances=True, threads=False, max_batch=False, gpus=0)
    with pytest.raises(Unusable, match="exit code 9"):
        found(tmp_path, choice, 2)
    assert list(tmp_path.iterdir()) == []


def test_time_that_is_over_leaves_the_default(tmp_path: Path) -> None:
    choice = Choice(setting(1), instances=True, threads=True, max_batch=True, gpus=0)
    result = found(tmp_path, choice, 2, seconds=0.01)
    assert (result.chosen, result.complete, result.rates) == ((choice.default,), False, {})


def test_larger_batches_are_tried_where_the_largest_is_the_best(tmp_path: Path) -> None:
    """A batch takes as long whatever its size: the more rows the better."""
    choice = Choice(setting(1, batch=2), instances=False, threads=False, max_batch=True, gpus=0, most_batch=6)
    result = found(tmp_path, choice, 2, policy="Largest")
    assert result.chosen == (setting(1, batch=6),)
    assert result.complete
    assert set(result.rates) == {"1 x 1, batch 2", "1 x 1, batch 4", "1 x 1, batch 6"}
