"""What the supervisor's core has around it: links to the dispatcher and the gateway, processes, files and segments.

`supervisor.processes` and `supervisor.model_resources` are these on a real machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from parallel_infer.config.schema import ModelConfig
from parallel_infer.errors import ConfigError, InferError
from parallel_infer.ipc.messages import FromChild, ModelPlan
from parallel_infer.model_spec import ModelSpec
from parallel_infer.supervisor.child_slot import ChildSlot


@dataclass(frozen=True)
class LoadRequest:
    """A model that somebody wants served."""

    name: str
    config: ModelConfig
    query: int | None = None  # the client's request that waits for it; None: it was read from the configuration
    known: str = ""  # the digest of what is served under this name and these settings
    settings: tuple[str, ...] = ()  # that are others than those of what is served


Found = ModelSpec | None | InferError | ConfigError  # None: it is what is known


class Outbox(Protocol):
    """A link to a process inside."""

    def send(self, message: object) -> None:
        """Queue a message."""


class Processes(Protocol):
    """Runs the processes that fill slots."""

    def start(self, slot: ChildSlot) -> None:
        """Start a process by the name `slot.running`. What it says and its end are told to the core."""

    def kill(self, slot: ChildSlot) -> None:
        """Kill the slot's process; its end is told as any other is."""

    def stop(self, slot: ChildSlot) -> None:
        """Kill the slot's process and reap it, so that it writes nowhere any more; nothing more is told of it."""

    def ask_to_end(self, slot: ChildSlot) -> None:
        """Tell the slot's process that it is time to go."""

    def ask_for_life(self, slot: ChildSlot) -> None:
        """Have the slot's process, a door's, say that it is alive."""


class ChildEvents(Protocol):
    """Whom it is told: the core."""

    def said(self, slot: ChildSlot, message: FromChild) -> None:
        """A message of the process that fills a slot."""

    def ended(self, slot: ChildSlot, code: int | None) -> None:
        """The process that fills a slot has ended and is reaped; all that it said was told before."""


class Resources(Protocol):
    """What models have outside: processes that look into their files, the run's copies of these, segments."""

    def probe(self, request: LoadRequest) -> None:
        """Look into a model file; what is found is told to the core."""

    def end_probe(self, name: str) -> None:
        """Look into the file of this model no longer, and remove the copy that nobody has taken in use."""

    def keep(self, spec: ModelSpec) -> ModelSpec:
        """Take the copy of a model file in use; where the same content is in use already, that one."""

    def release(self, spec: ModelSpec) -> None:
        """A model is served no more."""

    def has_file(self, spec: ModelSpec) -> bool:
        """Whether the file that a model is served from is still there."""

    def create_rings(self, plan: ModelPlan) -> None:
        """Create and reserve a model's segments. Raises ConfigError when memory is short."""

    def remove_lent(self, gateway: int) -> None:
        """Remove the segments that a gateway of this epoch lent to clients; it is dead, and its jobs are sent again."""

    def remove_rings(self, key: str) -> None:
        """Remove a model's segments, as many as there are; nobody may use them any more."""


class Outside(NamedTuple):
    """Everything that the core tells to do something."""

    dispatcher: Outbox
    gateway: Outbox
    processes: Processes
    resources: Resources
