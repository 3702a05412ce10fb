"""A configuration that was read again: what became of each model, and what only a restart can change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from parallel_infer.config.schema import ModelConfig, ServerConfig


class Reload:
    """Filled while models are looked into and loaded; `done` when all have come to an end, good or bad.

    What is new is loaded beside what goes, so that there is always something that serves. Only where there is no room
    for both does it wait until the others have closed, and is then tried once more.
    """

    def __init__(self, models: Mapping[str, ModelConfig], leaving: Iterable[str] = ()) -> None:
        """`models` are to be served, `leaving` are served and shall not be any more."""
        self._models = models
        self._waiting = set(models)
        self._leaving = list(leaving)
        self._closing: set[str] = set()  # keys of models that answer their last jobs
        self._postponed: list[str] = []  # models that had no room beside those
        self._became: dict[str, str] = {}
        self.refused: dict[str, str] = {}  # to the reason

    @property
    def done(self) -> bool:
        return not self._waiting and not self._leaving and not self._postponed

    def note(self, model: str, became: str) -> None:
        """A model has come to an end: "unchanged", "changed (its content)" ..."""
        self._waiting.discard(model)
        self._became[model] = became

    def refuse(self, model: str, why: str) -> None:
        """A model cannot be served as told; what was served of that name before still is."""
        self.refused[model] = why
        self.note(model, "refused")

    def postpone(self, model: str) -> bool:
        """A model found no room; whether it will be tried once more, when others have closed."""
        if not self._leaving or model not in self._waiting:
            return False
        self._waiting.discard(model)
        self._postponed.append(model)
        return True

    def take_leaving(self) -> list[str]:
        """The models to unload now: all that are to go, once the others have come to an end; else none."""
        if self._waiting:
            return []
        leaving, self._leaving = self._leaving, []
        return leaving

    def closes(self, model: str, key: str) -> None:
        """A model takes no more jobs."""
        self._closing.add(key)
        self.note(model, "removed")

    def closed(self, key: str) -> None:
        """The last job of a model is answered."""
        self._closing.discard(key)

    def take_postponed(self) -> dict[str, ModelConfig]:
        """The models to try once more now: those that had no room, when there is as much as there will be."""
        if self._leaving or self._closing:
            return {}
        postponed, self._postponed = self._postponed, []
        self._waiting.update(postponed)
        return {name: self._models[name] for name in postponed}

    def __str__(self) -> str:
        return "; ".join(f"model {model}: {became}" for model, became in self._became.items())


def changed_settings(old: ModelConfig, new: ModelConfig) -> tuple[str, ...]:
    """The settings of a model that are others now. Its path is none of them: the content counts."""
    return _changed(old, new, "path")


def needs_restart(old: ServerConfig, new: ServerConfig) -> tuple[str, ...]:
    """The settings of a server that are others now, and are taken over by a restart alone."""
    return _changed(old, new, "models", "chain")


def change_in_words(old_digest: str, new_digest: str, settings: tuple[str, ...]) -> str:
    """What makes a model another one than before."""
    parts = ["its content"] if old_digest != new_digest else []
    return " and ".join(parts + ([f"the settings {', '.join(settings)}"] if settings else [])) or "started anew"


def _changed(old: msgspec.Struct, new: msgspec.Struct, *but: str) -> tuple[str, ...]:
    names = (name for name in old.__struct_fields__ if name not in but)
    return tuple(name for name in names if getattr(old, name) != getattr(new, name))
