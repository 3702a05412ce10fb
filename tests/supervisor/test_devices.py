"""Which GPU runs which instance of a model."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from parallel_infer.cli import main
from parallel_infer.config.schema import ServerConfig
from parallel_infer.config.sources import load_config
from parallel_infer.errors import ConfigError
from parallel_infer.ipc.messages import ModelPlan
from parallel_infer.model_spec import ModelSpec, TensorSpec
from parallel_infer.supervisor import plan
from parallel_infer.supervisor.plan import plan_model

SPEC = ModelSpec(
    name="m",
    path="m.onnx",
    digest="0" * 64,
    task="tensor",
    family="tensor",
    inputs=(TensorSpec("x", "float32", (4,)),),
    outputs=(TensorSpec("y", "float32", (4,)),),
)


def planned(server: dict[str, Any], model: dict[str, Any]) -> ModelPlan:
    config = load_config({"models": ["m=zoo:detector"], "provider": "cuda", **server}, None, {})
    of_model = {"path": "m.onnx", **model}
    return plan_model(config, type(config.models["m"])(**of_model), SPEC, "s-{}".format, 1, 1)


@pytest.mark.parametrize(
    ("server", "model", "devices"),
    [
        ({}, {}, [0]),
        ({"device": "1"}, {}, [1]),
        ({"device": "0,1"}, {}, [0, 1]),
        ({"device": "0,1", "instances": 5}, {}, [0, 1, 0, 1, 0]),
        ({"device": "auto"}, {}, [0, 1, 2]),
        ({"device": "auto"}, {"device": 2}, [2]),
        ({"device": "0"}, {"device": [2, 1], "instances": 2}, [2, 1]),
        ({"device": "0,1", "provider": "cpu"}, {"instances": 1}, [0]),
    ],
)
def test_instances_are_spread_over_gpus(
    server: dict[str, Any], model: dict[str, Any], devices: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "visible_gpus", lambda: 3)
    found = planned(server, model)
    assert [found.session_of(number).device for number in range(found.instances)] == devices


def test_without_a_gpu_auto_is_the_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "visible_gpus", lambda: 0)
    assert planned({"device": "auto"}, {}).devices == (0,)


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ({"device": "0,0"}, r"device is \[0, 0\]; expected numbers of GPUs, each once, or auto"),
        ({"device": "0,1", "instances": 1}, r"the model m has 1 instances .* for the 2 GPUs \(0, 1\)"),
    ],
)
def test_what_cannot_be_spread_is_told(server: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        planned(server, {})


@pytest.mark.parametrize("value", ["both", "0,x", "-1", "300", ""])
def test_a_device_that_is_none_is_told_with_what_is_one(value: str) -> None:
    result = CliRunner().invoke(main, ["serve", "--device", value, "--print-config"])
    assert result.exit_code == 2
    assert "expected a whole number from 0 to 255 or a list, each of it a whole number" in result.stderr
    assert "or one of auto" in result.stderr


def test_devices_in_every_place_they_can_stand() -> None:
    for arguments, environment in (({"device": "0,1"}, {}), ({}, {"PARALLEL_INFER_DEVICE": "0, 1"})):
        assert load_config(arguments, None, environment).device == [0, 1]
    assert load_config({}, None, {"PARALLEL_INFER_DEVICE": "auto"}).device == "auto"
    assert ServerConfig().device == 0
