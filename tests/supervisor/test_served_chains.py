"""Chains that come, change and go while models do: what the gateway is told, and what is refused or warned of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from parallel_infer.config.schema import ModelConfig
from parallel_infer.errors import BadInput, ConfigError, InferError, UnknownModel
from parallel_infer.ipc.messages import (
    ChainsServed,
    LoadChain,
    LoadModel,
    Managed,
    ReloadModel,
    Started,
    UnloadModel,
)
from parallel_infer.model_spec import ModelSpec
from parallel_infer.supervisor.served_chains import ServedChains
from tests.chains.test_plan import SPECS
from tests.supervisor.core_rig import FakeOutbox, Rig


@dataclass
class Models:
    specs: dict[str, ModelSpec] = field(default_factory=lambda: dict(SPECS))
    loading: tuple[str, ...] = ()

    @property
    def names(self) -> set[str]:
        return {*self.specs, *self.loading}


@dataclass
class World:
    """Chains, the models that they are of, and what the gateway was told."""

    models: Models
    gateway: FakeOutbox
    chains: ServedChains

    @property
    def told(self) -> dict[str, str] | None:
        """The chains that the gateway was told last, since the last time; None: it was told nothing."""
        found = self.gateway.told(ChainsServed)
        return found[-1].chains if found else None


@pytest.fixture
def world() -> World:
    models, gateway = Models(), FakeOutbox()
    return World(models, gateway, ServedChains({"plates": "detector > reader"}, 64, gateway, models))


def test_a_chain_is_added_changed_and_removed(world: World) -> None:
    done = world.chains.load("kinds_of", "detector >\n kinds(top=1)")
    assert done == {
        "name": "kinds_of",
        "became": "new",
        "chain": "detector > kinds(top=1)",
        "models": ["detector", "kinds"],
    }
    assert world.told == {"plates": "detector > reader", "kinds_of": "detector > kinds(top=1)"}
    assert world.chains.load("kinds_of", "detector > kinds(top=1)")["became"] == "unchanged"
    assert world.told is None
    assert world.chains.load("kinds_of", "masks > plates")["became"] == "changed (its steps)"
    assert world.told == {"plates": "detector > reader", "kinds_of": "masks > plates"}
    assert world.chains.unload("kinds_of") == {"name": "kinds_of", "warnings": []}
    assert world.told == {"plates": "detector > reader"}


def test_a_new_gateway_is_told_what_there_is(world: World) -> None:
    world.chains.introduce()
    assert world.told == {"plates": "detector > reader"}


@pytest.mark.parametrize(
    ("name", "steps", "kind", "said"),
    [
        ("new", "detector > nobody", UnknownModel, "chain 'new': no model 'nobody' is served"),
        ("new", "kinds > reader", BadInput, "chain 'new': model 'kinds' does classify: it finds no objects"),
        ("new", "detector > numbers", BadInput, "'numbers' takes no pictures"),
        ("new", "detector > depth", BadInput, "'depth' does map"),
        ("new", "detector(class_filter=bus) > reader", BadInput, "no class 'bus'"),
        ("new", "detector > new", BadInput, "it goes in a circle: new > new"),
        ("plates", "detector > plates", BadInput, "it goes in a circle"),
        ("new", "detector >", ConfigError, "the name of a model was expected where it ends"),
        ("detector", "masks > reader", BadInput, "'detector' is the name of a model"),
        ("coming", "masks > reader", BadInput, "'coming' is the name of a model"),
        (" new", "masks > reader", ConfigError, "printable characters"),
    ],
)
def test_what_cannot_be_is_refused_as_at_the_start_and_changes_nothing(
    world: World, name: str, steps: str, kind: type[Exception], said: str
) -> None:
    world.models.loading = ("coming",)
    with pytest.raises(kind, match=said):
        world.chains.load(name, steps)
    assert world.told is None


def test_a_change_that_would_break_another_chain_is_refused(world: World) -> None:
    world.chains.load("outer", "plates > kinds")
    with pytest.raises(BadInput, match="another chain could not be served any more: chain 'outer': model 'reader'"):
        world.chains.load("plates", "reader")


def test_what_does_not_work_any_more_is_said_once(world: World) -> None:
    world.chains.load("outer", "masks > plates")
    reader = world.models.specs.pop("reader")
    warnings = world.chains.check()
    assert [warning[:43] for warning in warnings] == [
        "not served any more: chain 'plates': no mod",
        "not served any more: chain 'outer': no mode",
    ]
    assert world.chains.check() == []
    world.models.specs["reader"] = reader
    assert world.chains.check() == []
    (warning,) = world.chains.unload("plates")["warnings"]  # type: ignore[misc]
    assert "chain 'outer': no model 'plates' is served" in str(warning)


def test_a_configuration_that_is_read_again_is_what_there_is(world: World) -> None:
    world.chains.load("gone", "masks > reader")
    world.chains.load("stays", "masks > reader")
    assert world.chains.remove_all_but({"stays", "plates"}) == {"gone": "removed"}
    assert world.told is not None
    asked = {"stays": "masks > reader", "plates": "detector > kinds", "bad": "detector > no", "on_bad": "masks > bad"}
    became, refused = world.chains.configure(asked)
    assert became == {
        "stays": "unchanged",
        "plates": "changed (its steps)",
        "bad": "refused",
        "on_bad": "refused",
    }
    assert "no model 'no' is served" in refused["bad"]
    assert world.told == {"stays": "masks > reader", "plates": "detector > kinds"}
    became, refused = world.chains.configure({"plates": "detector(class_filter=bus) > kinds"})
    assert (became, list(refused)) == ({"plates": "refused"}, ["plates"])
    assert world.told == {"plates": "detector > kinds"}  # as before
    world.chains.unload("plates")
    with pytest.raises(BadInput, match="no class 'bus'"):  # as the configuration has it
        world.chains.manage(ReloadModel(1, "plates"))


# --- in the supervisor ------------------------------------------------------------------------------------------------


def serving(rig: Rig, *names: str) -> None:
    """Have these of the models above served."""
    for name in names:
        rig.take(LoadModel(1, name, __file__, msgspec.Raw(b"\x80")))
        rig.find(name, SPECS[name])
        rig.load(name)
    rig.forget()


def outcome(rig: Rig) -> Any:
    answer = rig.managed()
    return answer.code or msgspec.msgpack.decode(answer.result)


def test_clients_change_chains_and_hear_of_those_that_miss_a_model() -> None:
    rig = Rig().serving()
    serving(rig, "detector", "reader")
    rig.take(LoadChain(7, "plates", "detector > reader"))
    assert [type(message) for message in rig.gateway.sent] == [ChainsServed, Managed]
    assert outcome(rig)["models"] == ["detector", "reader"]
    rig.take(LoadModel(8, "plates", __file__, msgspec.Raw(b"\x80")))
    assert outcome(rig) == "BAD_INPUT"
    rig.take(ReloadModel(8, "plates"))
    assert outcome(rig)["became"] == "unchanged"
    rig.take(UnloadModel(9, "reader"))
    rig.close("reader")
    (warning,) = outcome(rig)["warnings"]
    assert "chain 'plates': no model 'reader' is served" in warning
    rig.take(UnloadModel(10, "plates"))
    assert outcome(rig) == {"name": "plates", "warnings": []}
    rig.take(UnloadModel(11, "plates"))
    assert outcome(rig) == "UNKNOWN_MODEL"


def test_a_model_that_became_another_one_is_said_to_break_its_chains() -> None:
    rig = Rig().serving()
    serving(rig, "detector", "reader")
    rig.take(LoadChain(7, "plates", "detector > reader"))
    rig.take(LoadModel(8, "detector", __file__, msgspec.Raw(b"\x80")))
    rig.find("detector", msgspec.structs.replace(SPECS["kinds"], name="detector"))
    rig.forget()
    rig.load("detector#2")
    (warning,) = outcome(rig)["warnings"]
    assert warning == (
        "not served any more: chain 'plates': model 'detector' does classify: it finds no objects that could be cut out"
    )


def test_a_gateway_that_starts_anew_is_told_of_chains_that_clients_made() -> None:
    rig = Rig().serving()
    serving(rig, "detector", "reader")
    rig.take(LoadChain(7, "plates", "detector > reader"))
    rig.forget()
    rig.die("gateway")
    rig.pass_time(5.0)
    rig.say("gateway", Started())
    assert [message.chains for message in rig.gateway.told(ChainsServed)] == [{"plates": "detector > reader"}]


def test_a_model_that_is_being_loaded_keeps_its_name_from_chains() -> None:
    rig = Rig(models={"detector": ModelConfig(path="m.onnx")}).serving()
    rig.take(LoadModel(7, "n", __file__, msgspec.Raw(b"\x80")))
    rig.take(LoadChain(8, "n", "detector"))
    assert outcome(rig) == "BAD_INPUT"


def test_errors_are_errors_of_clients(world: World) -> None:
    with pytest.raises(InferError):
        world.chains.manage(LoadChain(1, "new", "no"))
    assert world.chains.manage(UnloadModel(1, "detector")) is None
