"""Where a router's configuration comes from: command line, environment, file, default, in this order of precedence."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parallel_infer.config.addresses import absolute_address, check_forms, check_host_port, check_unreachable
from parallel_infer.config.environment import ROUTE_PREFIX, is_of_orchestrator
from parallel_infer.config.fields import fields_of
from parallel_infer.config.route_schema import RouteConfig
from parallel_infer.errors import ConfigError
from parallel_infer.files.text import read_text
from parallel_infer.model_files.location import absolute_path
from parallel_infer.wrong_fields import nearest

ROUTE_FIELDS = fields_of(RouteConfig)
_OTHER = ROUTE_PREFIX + "CONFIG"
_PATHS = ("keys", "key")


def read_route(arguments: Mapping[str, Any], file: Path | None, environment: Mapping[str, str]) -> RouteConfig:
    """The effective configuration. Raises ConfigError, which names the key, its place and what is expected.

    `arguments` holds values by field name; None and empty lists count as not given.
    """
    values = _of_file(file) if file is not None else {}
    values |= _of_environment(environment)
    for name, value in arguments.items():
        if value is not None and value not in ((), []):
            field = ROUTE_FIELDS[name]
            values[name] = _absolute(name, field.convert(value, field.option), Path())
    config = RouteConfig(**values)
    check_forms(config.bind, "bind")
    for place in (*config.http, *config.grpc):
        check_host_port(place)
    if config.keys is None and not config.insecure:
        check_unreachable((*config.http, *config.grpc), config.bind)
    return config


def _of_file(file: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(read_text(file))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration file {file}: {error.strerror}") from error
    except ValueError as error:  # not TOML, or no text
        raise ConfigError(f"{file} is not a TOML file: {error}") from error
    found = {}
    for key, value in table.items():
        if key not in ROUTE_FIELDS:
            raise ConfigError(f"{file}: a router has no setting {key!r}{nearest(key, ROUTE_FIELDS)}")
        found[key] = _absolute(key, ROUTE_FIELDS[key].convert(value, f"{file}: {key}"), file.absolute().parent)
    return found


def _of_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    known = {ROUTE_PREFIX + name.upper(): field for name, field in ROUTE_FIELDS.items()}
    found = {}
    for name in sorted(name for name in environment if name.startswith(ROUTE_PREFIX)):
        text = environment[name]
        if not text.strip() or name == _OTHER or is_of_orchestrator(name, text):
            continue
        if name not in known:
            raise ConfigError(f"unknown environment variable {name}{nearest(name, known)}")
        field = known[name]
        value = field.parse(text, f"the environment variable {name}")
        found[field.name] = _absolute(field.name, value, Path())
    return found


def _absolute(name: str, value: Any, folder: Path) -> Any:
    """A value with its relative paths resolved."""
    if name in _PATHS and value is not None:
        return str(absolute_path(value, folder))
    return [absolute_address(address, folder) for address in value] if name == "bind" else value
