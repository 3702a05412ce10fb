"""How the engine gets at stages: by name, so that it imports nothing that knows of pixels."""

from __future__ import annotations

import importlib
from typing import Any


def load_by_name(path: str) -> Any:
    """The object that "module:name" stands for."""
    module, name = path.split(":")
    return getattr(importlib.import_module(module), name)
