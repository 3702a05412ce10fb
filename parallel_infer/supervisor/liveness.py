"""Are the dispatcher, the gateway and the doors stuck? Nobody else would say so: the dispatcher watches workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from parallel_infer.supervisor.child_slot import ChildSlot, Role

_BEATS = 4  # unanswered ones after which a process counts as stuck
_VITAL = (Role.DISPATCHER, Role.GATEWAY)
_ASKED = (*_VITAL, Role.DOOR)


class Liveness:
    """Asks for a sign of life `_BEATS` times in `limit` seconds, and knows who has given none.

    Unanswered beats are counted, not seconds: where the whole machine stood still, nobody is to blame.
    """

    def __init__(self, limit: float) -> None:
        self._interval = limit / _BEATS
        self._unanswered: dict[str, int] = {}  # by incarnation
        self.due = 0.0  # when to beat next

    def beat(self, now: float, slots: Iterable[ChildSlot]) -> Iterator[tuple[ChildSlot, bool]]:
        """Whom to ask now, and whether it is stuck: has left the last `_BEATS` unanswered."""
        self.due = now + self._interval
        before, self._unanswered = self._unanswered, {}
        for slot in slots:
            if slot.role not in _ASKED or not slot.up or not slot.running:
                continue
            unanswered = before.get(slot.running, 0)
            self._unanswered[slot.running] = unanswered + 1
            yield slot, unanswered >= _BEATS

    def answered(self, incarnation: str) -> None:
        """A sign of life."""
        if incarnation in self._unanswered:
            self._unanswered[incarnation] = 0

    def fine(self, slots: Iterable[ChildSlot]) -> bool:
        """Whether those that nothing works without are up, and have answered but for the last time they were asked."""
        return all(slot.up and self._unanswered.get(slot.running, 0) <= 1 for slot in slots if slot.role in _VITAL)
