"""A configuration that was read again: what became of each model, and what only a restart can change."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from parallel_infer.config.schema import ModelConfig, ServerConfig


class Reload:
    """Filled while models are looked into and loaded; `done` when all have come to an end, good or bad."""

    def __init__(self, models: Iterable[str]) -> None:
        self._waiting = set(models)
        self._became: dict[str, str] = {}
        self.refused: dict[str, str] = {}  # to the reason

    @property
    def done(self) -> bool:
        return not self._waiting

    def note(self, model: str, became: str) -> None:
        """A model has come to an end: "unchanged", "changed (its content)" ..."""
        self._waiting.discard(model)
        self._became[model] = became

    def refuse(self, model: str, why: str) -> None:
        """A model cannot be served as told; what was served of that name before still is."""
        self.refused[model] = why
        self.note(model, "refused")

    def __str__(self) -> str:
        return "; ".join(f"model {model}: {became}" for model, became in self._became.items())


def changed_settings(old: ModelConfig, new: ModelConfig) -> tuple[str, ...]:
    """The settings of a model that are others now. Its path is none of them: the content counts."""
    return _changed(old, new, "path")


def needs_restart(old: ServerConfig, new: ServerConfig) -> tuple[str, ...]:
    """The settings of a server that are others now, and are taken over by a restart alone."""
    return _changed(old, new, "models")


def change_in_words(old_digest: str, new_digest: str, settings: tuple[str, ...]) -> str:
    """What makes a model another one than before."""
    parts = ["its content"] if old_digest != new_digest else []
    return " and ".join(parts + ([f"the settings {', '.join(settings)}"] if settings else [])) or "started anew"


def _changed(old: msgspec.Struct, new: msgspec.Struct, but: str) -> tuple[str, ...]:
    names = (name for name in old.__struct_fields__ if name != but)
    return tuple(name for name in names if getattr(old, name) != getattr(new, name))
