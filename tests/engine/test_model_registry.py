"""When clients are told of a model: not before the dispatcher takes its jobs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from parallel_infer.config.schema import ModelConfig
from parallel_infer.ipc.messages import Managed, ModelOpened, OpenModel
from parallel_infer.supervisor.model_registry import ModelRegistry
from parallel_infer.supervisor.model_version import ModelVersion
from parallel_infer.supervisor.run import Run
from tests.engine.core_rig import plan


class Said(list):
    """What was sent over a link."""

    send = list.append


class Up:
    """An instance that has started."""

    up, process, model = True, None, "m"


@pytest.fixture
def dispatcher():
    return Said()


@pytest.fixture
def gateway():
    return Said()


@pytest.fixture
def registry(dispatcher, gateway):
    registry = ModelRegistry(None, None, Run(None, None, None), None, dispatcher, gateway, SimpleNamespace(watch=None))
    registry.open_doors()
    registry._models["m"] = ModelVersion(plan(), ModelConfig(path="m.onnx"), slots=[Up()], query=7)
    return registry


def test_a_load_is_done_when_the_dispatcher_knows_and_the_gateway_does(registry, dispatcher, gateway):
    registry.instance_up(Up())
    assert [type(message) for message in dispatcher] == [OpenModel]
    assert gateway == []
    registry.opened("m")
    assert [type(message) for message in gateway] == [ModelOpened, Managed]
    assert gateway[1].query == 7
    registry.opened("m")  # a dispatcher that started anew
    assert len(gateway) == 2


def test_a_new_gateway_is_told_of_what_the_dispatcher_knows(registry, gateway):
    registry.instance_up(Up())
    registry.open_doors()
    assert gateway == []
    registry.opened("m")
    gateway.clear()
    registry.open_doors()
    assert [type(message) for message in gateway] == [ModelOpened]


def test_what_was_closed_before_it_was_taken_is_not_told_to_clients(registry, gateway):
    registry.instance_up(Up())
    registry._models["m"].closing = True
    registry.opened("m")
    assert [type(message) for message in gateway] == [Managed]


def test_doors_open_when_every_model_is_taken(registry, gateway):
    registry.serve_all()
    assert not registry.all_opened
    registry.opened("m")
    assert registry.all_opened
