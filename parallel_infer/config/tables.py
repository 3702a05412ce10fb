"""The tables of a TOML file: which keys may stand in which, and what their values are."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from parallel_infer.config.addresses import absolute_address
from parallel_infer.config.fields import FLEET_FIELDS, SERVER_FIELDS, Field, show
from parallel_infer.errors import ConfigError
from parallel_infer.files.text import read_text
from parallel_infer.model_files.location import absolute_path
from parallel_infer.wrong_fields import nearest


def parse_file(file: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises ConfigError."""
    try:
        return tomllib.loads(read_text(file))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration file {file}: {error.strerror}") from error
    except ValueError as error:  # not TOML, or no text
        raise ConfigError(f"{file} is not a TOML file: {error}") from error


def model_tables(tables: Any, file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each `[models.NAME]` by its name. Raises ConfigError."""
    if not isinstance(tables, dict):
        raise ConfigError(f"{file}: models is {show(tables)}; expected tables [models.NAME]")
    for model, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{file}: models.{model} is {show(table)}; expected a table [models.{model}]")
        yield model, table


def fleet_table(table: Any, file: Path) -> dict[str, Any]:
    """The fields that `[fleet]` sets, in their types. Raises ConfigError."""
    if not isinstance(table, dict):
        raise ConfigError(f"{file}: fleet is {show(table)}; expected a table [fleet]")
    place = f"{file}: [fleet]"
    for key in table:
        check_key(key, FLEET_FIELDS, SERVER_FIELDS, place, "the top of the file, before the first table")
    return {key: FLEET_FIELDS[key].convert(value, f"{place} {key}") for key, value in table.items()}


def check_key(
    key: str, known: Mapping[str, Field], elsewhere: Mapping[str, Field], place: str, other_place: str
) -> None:
    """Raises ConfigError for an unknown key, which says where it belongs if it is one of `elsewhere`."""
    if key in known:
        return
    if key in elsewhere:
        raise ConfigError(f"{place}: the key {key!r} does not belong here; it goes to {other_place}")
    raise ConfigError(f"{place}: unknown key {key!r}{nearest(key, known)}")


def absolute(name: str, value: Any, folder: Path) -> Any:
    """A value with its relative paths resolved; only folders and ipc addresses hold any."""
    if name in ("keys", "cache", "profile", "model_copies", "model_repository"):
        return str(absolute_path(value, folder))
    if name == "bind":
        return [absolute_address(address, folder) for address in value]
    return value


def chain_tables(value: Any, file: Path) -> Any:
    """`[chain.NAME]` with its one key, as NAME and the text of its steps. Raises ConfigError for other keys."""
    if not isinstance(value, dict):
        return value
    for name, table in value.items():
        if isinstance(table, dict) and set(table) != {"steps"}:
            found = ", ".join(map(repr, table)) or "none"
            raise ConfigError(f"{file}: [chain.{name}] has the one key steps; found: {found}")
    return {name: table["steps"] if isinstance(table, dict) else table for name, table in value.items()}
