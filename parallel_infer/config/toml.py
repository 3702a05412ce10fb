"""A configuration as the TOML file that would give it again, each line with where its value came from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from parallel_infer.config.fields import MODEL_FIELDS, SERVER_FIELDS, toml_key, toml_value
from parallel_infer.config.schema import ModelConfig
from parallel_infer.config.sources import Configuration
from parallel_infer.model_files.location import zoo_name


def to_toml(configuration: Configuration) -> str:
    """The text that `serve --print-config` prints. Read back, it gives the same configuration."""
    blocks = [_server_lines(configuration)]
    for name, model in configuration.config.models.items():
        blocks.append(_model_lines(name, model, configuration))
    return "\n".join("\n".join(block) + "\n" for block in blocks)


def _server_lines(configuration: Configuration) -> list[str]:
    values = {name: getattr(configuration.config, name) for name in SERVER_FIELDS if name != "models"}
    return [_line(name, value, configuration.origins[name]) for name, value in values.items()]


def _model_lines(name: str, model: ModelConfig, configuration: Configuration) -> list[str]:
    header = [f"[models.{toml_key(name)}]  # what is not named here comes from the ONNX file or from above"]
    return header + [_line(key, value, origin) for key, value, origin in _model_values(name, model, configuration)]


def _model_values(name: str, model: ModelConfig, configuration: Configuration) -> Iterator[tuple[str, Any, str]]:
    for key in MODEL_FIELDS:
        value = getattr(model, key)
        origin = configuration.origins.get(f"models.{name}.{key}", "default")
        if value is not None:
            yield key, (zoo_name(value) or value) if key == "path" else value, origin


def _line(key: str, value: Any, origin: str) -> str:
    comment = os.fsencode(origin).decode(errors="replace").replace("\n", " ")
    # TOML has no null; a comment says that the key exists and is not set
    return f"# {key} is not set" if value is None else f"{key} = {toml_value(value)}  # {comment}"
