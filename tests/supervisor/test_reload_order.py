"""A reload loads what is new beside what goes; only what found no room for that waits until the other has closed."""

from __future__ import annotations

from parallel_infer.config.schema import ModelConfig
from parallel_infer.supervisor.reload import Reload

A, B = ModelConfig(path="a.onnx"), ModelConfig(path="b.onnx")


def test_what_goes_waits_for_what_comes():
    reload = Reload({"a": A, "b": B}, ["old"])
    reload.note("a", "new")
    assert reload.take_leaving() == []
    reload.refuse("b", "no model")
    assert not reload.done
    assert reload.take_leaving() == ["old"]
    reload.closes("old", "old.1")
    assert reload.done, "its last jobs may take their time"
    assert str(reload) == "model a: new; model b: refused; model old: removed"


def test_what_found_no_room_is_tried_once_more_when_the_others_have_closed():
    reload = Reload({"a": A, "b": B}, ["old"])
    assert reload.postpone("a")
    assert reload.take_postponed() == {}
    reload.note("b", "new")
    assert reload.take_leaving() == ["old"]
    reload.closes("old", "old.1")
    assert reload.take_postponed() == {}, "it holds its memory until its last job is answered"
    assert not reload.done
    reload.closed("old.1")
    assert reload.take_postponed() == {"a": A}
    assert not reload.postpone("a"), "there will not be more room"
    reload.refuse("a", "no room")
    assert reload.done


def test_where_nothing_goes_there_will_be_no_more_room():
    reload = Reload({"a": A})
    assert not reload.postpone("a")
    reload.refuse("a", "no room")
    assert reload.done


def test_what_a_client_unloaded_meanwhile_is_not_waited_for():
    reload = Reload({"a": A}, ["old"])
    assert reload.postpone("a")
    assert reload.take_leaving() == ["old"]  # and it is found that nothing of that name is served
    assert reload.take_postponed() == {"a": A}
