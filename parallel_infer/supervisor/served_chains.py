"""Which chains there are: those of the configuration, and what clients have made of them. No I/O is done here."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Protocol

from parallel_infer.chains.plan import Check, Served, broken_chains, resolve
from parallel_infer.chains.steps import read_chain
from parallel_infer.config.sources import check_model_name
from parallel_infer.errors import BadInput, InferError
from parallel_infer.ipc.messages import ChainsServed, LoadChain, Manage, ReloadModel, UnloadModel
from parallel_infer.model_spec import ModelSpec
from parallel_infer.supervisor.outside import Outbox

log = logging.getLogger(__name__)


class ServedModels(Protocol):
    """The models that there are."""

    @property
    def specs(self) -> Mapping[str, ModelSpec]:
        """Those that are served, by name."""

    @property
    def names(self) -> Collection[str]:
        """The names of all, of those that are being loaded and closed as well."""


class ServedChains:
    """Adds, changes and removes chains, and tells the gateway. Requests under way end with the chain they began with.

    A chain whose models are not all served, or have become others, stays; it is served again once they are back.
    """

    def __init__(
        self,
        chains: Mapping[str, str],
        most_objects: int,
        gateway: Outbox,
        models: ServedModels,
        check: Check | None = None,
    ) -> None:
        self._texts = dict(chains)
        self._configured = dict(chains)
        self._most_objects = most_objects  # of a step that says nothing
        self._gateway = gateway
        self._models = models
        self._check = check
        self._broken: Collection[str] = ()  # chains that nobody can ask for, as far as it was told

    @property
    def names(self) -> list[str]:
        """The names of all chains, also of those whose models are not there."""
        return list(self._texts)

    def check_free(self, name: str) -> None:
        """Raises BadInput for a model that would be called like a chain."""
        if name in self._texts:
            raise BadInput(f"{name!r} is the name of a chain; call the model something else")

    def introduce(self) -> None:
        """Tell a new gateway, which knows of none."""
        if self._texts:
            self._gateway.send(ChainsServed(self._texts))

    # --- what clients ask for ----------------------------------------------------------------------------------------

    def manage(self, message: Manage) -> dict[str, object] | None:
        """Do what a client asks for where that is a chain's; None where it is a model's. Raises as `load` does."""
        match message:
            case LoadChain():
                return self.load(message.name, message.steps)
            case ReloadModel() if message.name in self._texts:
                return self.load(message.name, self._texts[message.name])
            case ReloadModel() if message.name in self._configured and message.name not in self._models.specs:
                return self.load(message.name, self._configured[message.name])
            case UnloadModel() if message.name in self._texts:
                return self.unload(message.name)
        return None

    def load(self, name: str, steps: str) -> dict[str, object]:
        """Serve a chain, or replace the one of that name; what became of it.

        Raises ConfigError and InferError, as at the start, and BadInput where another chain would not work any more.
        """
        check_model_name(name)
        steps = " ".join(steps.split())
        if name in self._models.names:
            raise BadInput(f"{name!r} is the name of a model; call the chain something else")
        served = self._served({**self._texts, name: steps})
        node = resolve(name, served)
        broken, before = broken_chains(served), broken_chains(self._served(self._texts))
        if other := next((other for other in broken if other not in before), None):
            raise BadInput(f"with {name!r} as {steps!r} another chain could not be served any more: {broken[other]}")
        became = self._became(name, steps)
        self._become({**self._texts, name: steps})
        self.check()
        log.info("chain %s is served: %s, %s", name, steps, became)
        return {"name": name, "became": became, "chain": steps, "models": list(dict.fromkeys(node.models))}

    def unload(self, name: str) -> dict[str, object]:
        """Serve a chain no more; its name, and warnings about those that have it as a step."""
        self._become({other: steps for other, steps in self._texts.items() if other != name})
        log.info("chain %s is served no more", name)
        return {"name": name, "warnings": self.check()}

    def check(self) -> list[str]:
        """Models or chains have changed: warnings about chains that worked until now and do not any more."""
        broken = broken_chains(self._served(self._texts))
        warnings = [f"not served any more: {error}" for name, error in broken.items() if name not in self._broken]
        for name in [name for name in self._broken if name in self._texts and name not in broken]:
            log.info("chain %s is served again", name)
        for warning in warnings:
            log.warning("%s", warning)
        self._broken = broken
        return warnings

    # --- a configuration that was read again -------------------------------------------------------------------------

    def remove_all_but(self, names: Collection[str]) -> dict[str, str]:
        """Serve no chain of another name; what became of each that goes. Said before models change."""
        gone = [name for name in self._texts if name not in names]
        self._become({name: steps for name, steps in self._texts.items() if name in names})
        return dict.fromkeys(gone, "removed")

    def configure(self, chains: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
        """Make the chains those of a configuration, models being what they shall be.

        Returns what became of each, and why some were refused: those stay as they were.
        """
        texts, refused = dict(chains), dict[str, str]()
        while new := {name: error for name, error in self._faults(texts).items() if name not in refused}:
            refused |= {name: str(error) for name, error in new.items()}
            texts |= {name: self._texts[name] for name in new if name in self._texts}
            texts = {name: steps for name, steps in texts.items() if name not in new or name in self._texts}
        became = {name: self._became(name, chains[name]) for name in chains}
        self._configured = dict(chains)
        self._become(texts)
        self.check()
        return {**became, **dict.fromkeys(refused, "refused")}, refused

    def _faults(self, texts: Mapping[str, str]) -> dict[str, InferError]:
        specs = self._models.specs
        called = {name: BadInput(f"chain {name!r} is called like a model") for name in texts if name in specs}
        return {**broken_chains(self._served(texts)), **called}

    def _became(self, name: str, steps: str) -> str:
        if name not in self._texts:
            return "new"
        return "unchanged" if self._texts[name] == steps else "changed (its steps)"

    # --- inside ------------------------------------------------------------------------------------------------------

    def _served(self, texts: Mapping[str, str]) -> Served:
        steps = {name: read_chain(name, text) for name, text in texts.items()}
        return Served(self._models.specs, steps, self._most_objects, self._check)

    def _become(self, texts: dict[str, str]) -> None:
        if texts != self._texts:
            self._texts = texts
            self._gateway.send(ChainsServed(texts))
