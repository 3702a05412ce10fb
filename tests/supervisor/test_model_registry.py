"""What is loaded, served, reloaded and unloaded, and when clients are told: with the supervisor's core alone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from parallel_infer.config.schema import ModelConfig
from parallel_infer.errors import ModelRejected
from parallel_infer.ipc.messages import (
    CloseModel,
    LoadModel,
    Managed,
    ModelClosed,
    ModelOpened,
    ModelServed,
    OpenModel,
    ReloadModel,
    Started,
    StartFailed,
    UnloadModel,
)
from tests.supervisor.core_rig import CONFIG, Rig, spec

OTHER = "1" * 64  # a digest


@pytest.fixture
def rig() -> Rig:
    return Rig().serving()


def load(rig: Rig, name: str, query: int = 7, **options: Any) -> None:
    rig.take(LoadModel(query, name, __file__, msgspec.Raw(msgspec.msgpack.encode(options))))


def became(answer: Managed) -> str:
    assert answer.code == "", answer.text
    return str(msgspec.msgpack.decode(answer.result)["became"])


def test_a_model_is_told_of_when_the_dispatcher_takes_its_jobs_and_not_before(rig: Rig) -> None:
    load(rig, "n")
    rig.find("n", spec("n"))
    assert rig.dispatcher.news() == ["PrepareModel"]
    rig.say("infer-n-0", Started())
    assert rig.dispatcher.news() == []
    rig.say("infer-n-1", Started())
    assert rig.dispatcher.news() == ["OpenModel"]
    assert rig.gateway.news() == []
    rig.take(ModelServed("n"))
    assert [type(message) for message in rig.gateway.sent] == [ModelOpened, Managed]
    assert became(rig.managed()) == "new"
    rig.take(ModelServed("n"))  # of a dispatcher that started anew
    assert rig.gateway.news() == []
    assert rig.core.names == ["m", "n"]


def test_a_new_gateway_is_told_of_what_the_dispatcher_knows_alone(rig: Rig) -> None:
    load(rig, "n")
    rig.find("n", spec("n"))
    rig.all_start()
    rig.die("gateway")
    rig.pass_time(0.0)
    rig.say("gateway", Started())
    assert [message.plan.key for message in rig.gateway.told(ModelOpened)] == ["m"]
    rig.take(ModelServed("n"))
    assert [message.plan.key for message in rig.gateway.told(ModelOpened)] == ["n"]


def test_a_new_version_takes_over_and_the_old_one_goes_with_its_last_job(rig: Rig) -> None:
    rig.take(ReloadModel(7, "m"))
    rig.find("m", spec("m", OTHER))
    rig.load("m#2")
    assert became(rig.managed()) == "changed (its content)"
    assert rig.resources.rings == {"m", "m#2"}
    rig.close("m")
    assert rig.resources.rings == {"m#2"}
    assert rig.processes.stopped == ["infer-m-0.1", "infer-m-1.1"]
    assert [kept.digest for kept in rig.resources.kept] == [OTHER]


def test_what_has_not_changed_is_not_loaded_again(rig: Rig) -> None:
    rig.take(ReloadModel(7, "m"))
    assert rig.resources.probes["m"].known == spec("m").digest
    rig.find("m", None)
    assert became(rig.managed()) == "unchanged"
    rig.resources.missing.add("m")  # its copy: what is served cannot be started again
    rig.take(ReloadModel(8, "m"))
    assert rig.resources.probes["m"].known == ""


def test_what_was_unloaded_while_it_was_looked_into_is_looked_into_again(rig: Rig) -> None:
    rig.take(ReloadModel(7, "m"), UnloadModel(8, "m"))
    rig.find("m", None)
    assert rig.resources.probes["m"].known == ""
    rig.find("m", spec("m"))
    rig.load("m#2")
    assert became(rig.managed()) == "new"


def test_an_unload_shuts_the_gateway_first_and_is_done_with_the_last_job(rig: Rig) -> None:
    rig.take(UnloadModel(7, "m"))
    assert rig.gateway.told(ModelClosed) == [ModelClosed("m")]
    assert rig.dispatcher.told(CloseModel) == [CloseModel("m")]
    assert rig.gateway.told(Managed) == []
    rig.close("m")
    assert rig.managed().code == ""
    assert (rig.resources.rings, rig.core.names) == (set(), [])


@pytest.mark.parametrize("how", ["found", "late", "memory", "start", "death"])
def test_a_load_that_comes_to_nothing_leaves_nothing_and_says_why(rig: Rig, how: str) -> None:
    load(rig, "n")
    if how == "found":
        rig.find("n", ModelRejected("not found"))
    elif how == "late":
        rig.pass_time(10.0)
    elif how == "memory":
        rig.resources.is_full = True
        rig.find("n", spec("n"))
    else:
        rig.find("n", spec("n"))
        rig.say("infer-n-0", Started())
        if how == "start":
            rig.say("infer-n-1", StartFailed("OSError: no start"))
        else:
            rig.die("infer-n-1")
    answer = rig.managed()
    said = {
        "found": "not found",
        "late": "start_timeout_ms",
        "memory": "not enough",
        "start": "no start",
        "death": "-9",
    }
    assert answer.code
    assert said[how] in answer.text
    assert (rig.resources.rings, rig.resources.kept, rig.resources.probes) == ({"m"}, [], {})
    assert all(slot.model in ("", "m") for slot in rig.processes.running.values())
    load(rig, "n")  # and may be asked for again
    assert "n" in rig.resources.probes


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (UnloadModel(7, "none"), "UNKNOWN_MODEL"),
        (ReloadModel(7, "none"), "UNKNOWN_MODEL"),
        (LoadModel(7, "n", __file__, msgspec.Raw(msgspec.msgpack.encode({"no": "option"}))), "BAD_INPUT"),
        (LoadModel(7, "n\n12:00:00 ERROR forged", __file__, msgspec.Raw(b"\x80")), "BAD_INPUT"),
        (LoadModel(7, " n", __file__, msgspec.Raw(b"\x80")), "BAD_INPUT"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(rig: Rig, message: Any, code: str) -> None:
    rig.take(message)
    assert rig.managed().code == code


def test_one_load_of_a_name_at_a_time(rig: Rig) -> None:
    load(rig, "n", 7)
    load(rig, "n", 8)
    answer = rig.managed()
    assert (answer.query, answer.code) == (8, "BAD_INPUT")
    rig.find("n", spec("n"))
    load(rig, "n", 9)
    assert rig.managed().query == 9


def test_an_older_version_that_closes_before_it_was_taken_is_not_told_to_clients(rig: Rig) -> None:
    load(rig, "n", 7)
    rig.find("n", spec("n"))
    rig.all_start()
    rig.take(UnloadModel(8, "n"))
    rig.gateway.sent.clear()
    rig.take(ModelServed("n"))
    assert rig.gateway.told(ModelOpened) == []
    rig.close("n")
    assert rig.managed().query == 8


def test_a_configuration_that_is_read_again_becomes_what_is_served(rig: Rig) -> None:
    models = {"m": ModelConfig(path="m.onnx", weight=2.0), "n": ModelConfig(path="n.onnx"), "o": ModelConfig(path="o")}
    reload = rig.core.reload(models)
    assert not reload.done
    rig.find("m", spec("m"))
    rig.find("o", ModelRejected("no model"))
    rig.find("n", spec("n"))
    rig.load("m#2")
    rig.load("n")
    assert reload.done
    assert str(reload) == "model o: refused; model m: changed (the settings weight); model n: new"
    assert reload.refused == {"o": "no model"}
    again = rig.core.reload({"n": models["n"]})
    rig.find("n", None)
    assert str(again) == "model n: unchanged; model m: removed"


def test_doors_open_when_the_dispatcher_takes_every_model() -> None:
    rig = Rig(models={"a": CONFIG.models["m"], "b": CONFIG.models["m"]})
    rig.core.start()
    rig.all_start()
    assert [message.plan.key for message in rig.dispatcher.told(OpenModel)] == ["a", "b"]
    rig.take(ModelServed("a"))
    assert rig.gateway.news() == ["ModelOpened"]
    rig.take(ModelServed("b"))
    assert rig.gateway.news() == ["ModelOpened", "ModelOpened", "ModelOpened", "OpenDoor"]


def test_a_reload_loads_what_is_new_before_it_closes_what_goes(rig: Rig) -> None:
    reload = rig.core.reload({"n": ModelConfig(path="n.onnx")})
    rig.find("n", spec("n"))
    assert rig.core.names == ["m"]
    rig.load("n")
    assert (rig.core.names, str(reload), reload.done) == (["n"], "model n: new; model m: removed", True)


def test_a_reload_tries_once_more_where_there_was_no_room_beside_what_goes(rig: Rig) -> None:
    reload = rig.core.reload({"n": ModelConfig(path="n.onnx")})
    rig.resources.is_full = True
    rig.find("n", spec("n"))
    assert rig.core.names == []
    rig.resources.is_full = False
    rig.close("m")
    rig.find("n", spec("n"))
    rig.load("n#2")
    assert (rig.core.names, str(reload), reload.done) == (["n"], "model m: removed; model n: new", True)
