"""What a fleet is told, from command line, environment and file: `[fleet]`, and what each of its servers is told.

Its servers run on other machines. A path is made absolute here, from the folder of the file, and must be right there:
whether a model is at that place is found out by the machine that loads it. What is read from other files, such as class
names, is taken along.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parallel_infer.config.addresses import check_host_port
from parallel_infer.config.fields import FLEET_FIELDS, FLEET_PREFIX, MODEL_FIELDS, SERVER_FIELDS, show
from parallel_infer.config.fleet_schema import MOST_NODES, FleetConfig
from parallel_infer.config.schema import ModelConfig, ServerConfig
from parallel_infer.config.sources import check, check_model_name
from parallel_infer.config.tables import absolute, check_key, fleet_table, model_tables, parse_file
from parallel_infer.errors import ConfigError
from parallel_infer.model_files.class_names import read_names
from parallel_infer.model_files.location import (
    SERVED_BY_DEFAULT,
    ZOO_PREFIX,
    absolute_path,
    find_model,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}")
_EXAMPLE = '[fleet]\nname = "main"\nnodes = 3\n'


@dataclass(frozen=True, slots=True)
class Fleet:
    """A fleet and what its servers are told."""

    config: FleetConfig
    least: int  # machines
    most: int
    server: dict[str, Any]  # the servers' TOML file without `bind`; of the models those whose files are in a repository
    models: dict[str, dict[str, Any]]  # the other tables [models.NAME]
    warnings: tuple[str, ...] = ()


def read_fleet(file: Path, environment: Mapping[str, str], nodes: str | None = None) -> Fleet:
    """The fleet of a TOML file. Variables of the environment win over it, `nodes` over both. Raises ConfigError."""
    tables = parse_file(file)
    if "fleet" not in tables:
        raise ConfigError(f"{file} has no table [fleet], which says what to deploy; add for example\n{_EXAMPLE}")
    values = fleet_table(tables.pop("fleet"), file)
    place = f"{file}: [fleet] nodes"
    for name, field in FLEET_FIELDS.items():
        variable = FLEET_PREFIX + name.upper()
        if text := environment.get(variable, "").strip():
            values[name] = field.parse(text, f"the environment variable {variable}")
            place = f"the environment variable {variable}" if name == "nodes" else place
    if nodes is not None:
        values["nodes"], place = nodes, "--nodes"
    if values.get("key"):
        values["key"] = str(absolute_path(values["key"], file.absolute().parent))
    config = FleetConfig(**values)
    if not _NAME.fullmatch(config.name):
        raise ConfigError(f"[fleet] name is {show(config.name)}; expected 1 to 48 letters, digits, dots and dashes")
    least, most = node_range(config.nodes, place)
    _check_resources(config)
    for address in (*config.http, *config.grpc):
        check_host_port(address)
    models = {name: _model(name, table, file) for name, table in model_tables(tables.pop("models", {}), file)}
    server, warnings = _server(tables, file)
    if server.get("keys") is not None and config.router != "none" and config.key is None:
        raise ConfigError(
            "[fleet] key is not set, and the servers have keys: make one with `parallel-infer keys new router "
            "--manage`, put the file at one place on each machine with a router, and name it"
        )
    _check_server(server, models)
    if in_repository := {name: model for name, model in models.items() if "path" not in model}:
        server["models"] = in_repository
    return Fleet(config, least, most, server, _with_paths(server, models), warnings)


def node_range(value: int | str, place: str) -> tuple[int, int]:
    """Least and most machines of `3` or `1..8`. Raises ConfigError that names `place`."""
    found = re.fullmatch(r"\s*(\d{1,6})\s*(?:\.\.\s*(\d{1,6})\s*)?", str(value))
    least, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= least <= most <= MOST_NODES:
        raise ConfigError(f"{place} is {show(value)}; expected 1 to {MOST_NODES}, or a range of them such as 1..8")
    return least, most


def _check_resources(config: FleetConfig) -> None:
    for name, amount in config.resources.items():
        if not name or amount <= 0:
            raise ConfigError(f"[fleet] resources: {name!r} is {amount:g}; expected a name and a number above 0")
    if 1 < config.gpus != int(config.gpus):
        raise ConfigError(f"[fleet] gpus is {config.gpus:g}; Ray shares out parts of one GPU, or whole ones")


def _server(tables: Mapping[str, Any], file: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The servers' settings, and what to warn of."""
    folder, values = file.absolute().parent, {}
    for key, value in tables.items():
        check_key(key, SERVER_FIELDS, MODEL_FIELDS, str(file), "a [models.NAME] table")
        values[key] = absolute(key, SERVER_FIELDS[key].convert(value, f"{file}: {key}"), folder)
    ignored = (
        f"{file}: bind counts for no server of a fleet; each listens at its machine's address ([fleet] member_port)"
    )
    return values, (ignored,) if values.pop("bind", None) else ()


def _model(name: str, table: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """A table [models.NAME], with its path as every machine has it."""
    check_model_name(name)
    folder, place, values = file.absolute().parent, f"{file}: [models.{name}]", {}
    for key, value in table.items():
        check_key(key, MODEL_FIELDS, SERVER_FIELDS, place, "the top of the file, before the first table")
        values[key] = MODEL_FIELDS[key].convert(value, f"{place} {key}")
    if "names" in values:
        values["names"] = read_names(values["names"], folder)
    path = values.get("path", "")
    if path.startswith(ZOO_PREFIX):
        find_model(path, folder)
    elif path:
        values["path"] = str(absolute_path(path, folder))
    return values


def _check_server(server: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]]) -> None:
    """What no field can tell alone."""
    repository = server.get("model_repository")
    for name, model in models.items():
        if "path" not in model and repository is None:
            raise ConfigError(f"[models.{name}] has no path: which ONNX file is it? For example path = {name}.onnx")
    tables = {name: ModelConfig(**{"path": "", **model}) for name, model in models.items()}
    check(ServerConfig(models=tables, **server), "bind")


def _with_paths(server: Mapping[str, Any], models: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The models that are loaded by their paths; the shipped ones where none are named in any way."""
    if models or server.get("model_repository") is not None:
        return {name: model for name, model in models.items() if "path" in model}
    return {name: {"path": ZOO_PREFIX + name} for name in SERVED_BY_DEFAULT}
