"""Who counts as stuck, and whether there is life to tell of."""

from __future__ import annotations

from parallel_infer.process.options import ChildOptions
from parallel_infer.supervisor.child_slot import ChildSlot, Role
from parallel_infer.supervisor.liveness import Liveness


def slot(name: str, role: Role, incarnation: int = 1, *, up: bool = True) -> ChildSlot:
    """A slot that its process of this number fills."""
    filled = ChildSlot(name, role, "", ChildOptions(log_format="text", log_level="error"))
    for _ in range(incarnation):
        filled.fill(up_by=0.0)
    filled.up = up
    return filled


def stuck(liveness: Liveness, now: float, slots: list[ChildSlot]) -> list[str]:
    """Who is told to be stuck at a beat."""
    return [asked.running for asked, is_stuck in liveness.beat(now, slots) if is_stuck]


def test_four_unanswered_beats_are_too_many() -> None:
    liveness = Liveness(8.0)
    slots = [slot("dispatcher", Role.DISPATCHER), slot("gateway", Role.GATEWAY)]
    for beat in range(4):
        assert stuck(liveness, beat * 2.0, slots) == []
        assert liveness.due == beat * 2.0 + 2.0
        liveness.answered("gateway.1")
    assert stuck(liveness, 8.0, slots) == ["dispatcher.1"]


def test_a_machine_that_stood_still_costs_one_beat() -> None:
    liveness = Liveness(8.0)
    slots = [slot("dispatcher", Role.DISPATCHER)]
    assert stuck(liveness, 0.0, slots) == []
    assert stuck(liveness, 3600.0, slots) == []


def test_successors_workers_and_those_that_start_are_not_blamed() -> None:
    liveness = Liveness(8.0)
    old, new = slot("dispatcher", Role.DISPATCHER), slot("dispatcher", Role.DISPATCHER, 2)
    others = [slot("decode-0", Role.WORKER), slot("gateway", Role.GATEWAY, 2, up=False)]
    for beat in range(4):
        assert stuck(liveness, beat * 2.0, [old, *others]) == []
    assert stuck(liveness, 8.0, [new, *others]) == []
    assert stuck(liveness, 10.0, [new, *others]) == []


def test_life_is_an_answer_of_dispatcher_and_gateway() -> None:
    liveness = Liveness(4.0)
    slots = [slot("d", Role.DISPATCHER), slot("g", Role.GATEWAY), slot("w", Role.WORKER)]
    assert liveness.fine(slots)
    assert stuck(liveness, 0.0, slots) == []
    assert liveness.fine(slots), "they have only just been asked"
    liveness.answered("d.1")
    assert stuck(liveness, 1.0, slots) == []
    assert not liveness.fine(slots), "the gateway has answered neither time"
    liveness.answered("g.1")
    assert liveness.fine(slots)
    slots[2].up = False
    assert liveness.fine(slots), "workers are the dispatcher's to watch"
    slots[0].up = False
    assert not liveness.fine(slots)
