"""The doors for clients of other protocols, as the status tells of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from parallel_infer.doors.options import DoorOptions
from parallel_infer.ipc.messages import DoorActivity, DoorState
from parallel_infer.supervisor.child_slot import ChildSlot

_NOTHING = DoorActivity()


class DoorStates:
    """Every configured door, also before it has a process: a server is not ready without it."""

    def __init__(self, doors: Iterable[ChildSlot]) -> None:
        self.slots = {slot.name: slot for slot in doors}
        self._activity: dict[str, DoorActivity] = {}  # by process

    def note(self, slot: ChildSlot, activity: DoorActivity) -> None:
        """Take in what the process of a door has done."""
        self._activity = {slot.running: activity, **{name: self._activity[name] for name in self._others(slot)}}

    def states(self, listening: Mapping[str, tuple[str, ...]]) -> dict[str, DoorState]:
        """Each door; `listening` are the addresses it was last heard at."""
        return {name: self._state(slot, listening.get(name, ())) for name, slot in self.slots.items()}

    def _others(self, slot: ChildSlot) -> set[str]:
        return {other.running for other in self.slots.values() if other is not slot} & set(self._activity)

    def _state(self, slot: ChildSlot, addresses: tuple[str, ...]) -> DoorState:
        return DoorState(
            kind=slot.name,
            addresses=addresses,
            state="up" if slot.up else "down",
            restarts=slot.restarts,
            **msgspec.structs.asdict(self._activity.get(slot.running, _NOTHING)),
        )


def keep_ports(slot: ChildSlot, addresses: tuple[str, ...]) -> None:
    """Have a successor listen where this process does, also where a port was left open."""
    options = slot.options
    if isinstance(options, DoorOptions) and any(place.endswith((":0", ":*")) for place in options.bind):
        bind = tuple(address.removeprefix("http://").removeprefix("grpc://") for address in addresses)
        slot.options = msgspec.structs.replace(options, bind=bind)
