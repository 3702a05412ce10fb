"""Where a server's configuration comes from: command line, environment, file, default, in this order of precedence.

HOST, PORT and MAX_BATCH_SIZE, which may be meant for other programs, stand between the file and the default.

What is None in a `ModelConfig` afterwards comes from the server's defaults or from the ONNX file; `stages.families`
reads the latter. Nothing in here opens a socket, a segment or a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parallel_infer.chains.steps import read_chain
from parallel_infer.config.addresses import check_addresses, check_forms
from parallel_infer.config.engine_schema import USUAL_BATCH
from parallel_infer.config.environment import VARIABLES, familiar, our_variables
from parallel_infer.config.fields import MODEL_FIELDS, SERVER_FIELDS, Field
from parallel_infer.config.schema import ModelConfig, ServerConfig
from parallel_infer.config.tables import absolute, chain_tables, check_key, fleet_table, model_tables, parse_file
from parallel_infer.errors import ConfigError
from parallel_infer.limits import MAX_NAME
from parallel_infer.model_files.class_names import read_names
from parallel_infer.model_files.location import ZOO_PREFIX, default_models, find_model, split_model
from parallel_infer.model_files.repository import read_repository
from parallel_infer.model_spec import FILE, PICTURE
from parallel_infer.wrong_fields import nearest

__all__ = [
    "Configuration",
    "check_addresses",
    "check_model_name",
    "load_config",
    "model_config",
    "provenance",
    "read_config",
    "zoo_models",
]

COMMAND_LINE = "command line"
DEFAULT = "default"
LONGEST_MODEL_NAME = MAX_NAME - len(FILE)


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration and where each value came from: "max_batch_size" or "models.NAME.path" to its source."""

    config: ServerConfig
    origins: Mapping[str, str]
    warnings: tuple[str, ...] = ()  # about variables of the environment

    @property
    def names_models(self) -> bool:
        """Whether any source says what to serve."""
        return any(name.startswith("models.") and origin != DEFAULT for name, origin in self.origins.items())


def load_config(arguments: Mapping[str, Any], file: Path | None, environment: Mapping[str, str]) -> ServerConfig:
    """The effective configuration. Raises ConfigError, which names the key, its place and what is expected.

    `arguments` holds values by field name; None and empty lists count as not given. Its "models" is a list of
    `NAME=PATH`. All paths come out absolute.
    """
    return read_config(arguments, file, environment).config


def provenance(arguments: Mapping[str, Any], file: Path | None, environment: Mapping[str, str]) -> Mapping[str, str]:
    """Which source set each value of `load_config`."""
    return read_config(arguments, file, environment).origins


def read_config(arguments: Mapping[str, Any], file: Path | None, environment: Mapping[str, str]) -> Configuration:
    """`load_config` and `provenance` in one."""
    draft = _Draft()
    if file is not None:
        _read_file(file, draft)
    _read_environment(environment, draft)
    _read_arguments(arguments, draft)
    _read_familiar(environment, draft)
    return draft.finish()


def zoo_models() -> dict[str, ModelConfig]:
    """What a server serves that is told no model."""
    return {name: ModelConfig(path=path) for name, path in default_models().items()}


@dataclass(slots=True)
class _Draft:
    """Values gathered so far; a later source overwrites an earlier one."""

    values: dict[str, Any] = field(default_factory=dict)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def set(self, name: str, value: Any, origin: str) -> None:
        self.values[name] = value
        self.origins[name] = origin

    def set_model(self, model: str, name: str, value: Any, origin: str) -> None:
        self.models.setdefault(model, {})[name] = value
        self.origins[f"models.{model}.{name}"] = origin

    def add_repository(self) -> None:
        """The models of `model_repository`, where nothing else says where a model of that name lies."""
        folder = self.values.get("model_repository")
        if folder is None:
            return
        found = read_repository(Path(folder))
        self.warnings += found.warnings
        for name, path in found.models.items():
            if "path" not in self.models.get(name, {}):
                self.set_model(name, "path", path, f"model_repository {folder}")

    def finish(self) -> Configuration:
        self.add_repository()
        if not self.models:
            for name, model in zoo_models().items():
                self.set_model(name, "path", model.path, DEFAULT)
        _check_models(self.models, self.values.get("model_repository"))
        models = {name: ModelConfig(**values) for name, values in self.models.items()}
        config = ServerConfig(models=models, **self.values)
        check(config, f"bind ({self.origins.get('bind', DEFAULT)})")
        origins = {name: self.origins.get(name, DEFAULT) for name in SERVER_FIELDS if name != "models"}
        return Configuration(config, self.origins | origins, tuple(self.warnings))


def check_model_name(name: str) -> None:
    """Raises ConfigError for what no model can be called: it stands in logs, tables and addresses."""
    if not 0 < len(name) <= LONGEST_MODEL_NAME or not name.isprintable() or name != name.strip():
        raise ConfigError(f"the model name {name!r} is not 1 to {LONGEST_MODEL_NAME} printable characters")
    if name.endswith((FILE, PICTURE)):
        raise ConfigError(
            f"the model name {name!r} ends as the names do under which doors know models ({FILE}, {PICTURE}); "
            "choose another name"
        )


def model_config(path: str, options: Mapping[str, Any]) -> ModelConfig:
    """The configuration of one model that a client asks for. Raises ConfigError that names the option."""
    try:
        values: dict[str, Any] = {"path": find_model(path, Path("/"))}
    except ConfigError as error:
        if path.startswith(("/", "~", ZOO_PREFIX)):
            raise
        raise ConfigError(f"{error}; the server has a working folder of its own, so give an absolute path") from None
    for key, value in options.items():
        if key == "path":
            raise ConfigError("path is given already; it is no option of a model")
        check_key(key, MODEL_FIELDS, SERVER_FIELDS, "options of the model", "the server's configuration")
        values[key] = MODEL_FIELDS[key].convert(value, f"option {key} of the model")
    return ModelConfig(**values)


def _read_file(file: Path, draft: _Draft) -> None:
    folder = file.absolute().parent
    for key, value in parse_file(file).items():
        if key == "models":
            for model, table in model_tables(value, file):
                _read_model_table(model, table, file, draft)
        elif key == "fleet":
            fleet_table(value, file)  # is nothing to one server, and must be right all the same
        else:
            check_key(key, SERVER_FIELDS, MODEL_FIELDS, str(file), "a [models.NAME] table")
            value = chain_tables(value, file) if key == "chain" else value
            converted = SERVER_FIELDS[key].convert(value, f"{file}: {key}")
            draft.set(key, absolute(key, converted, folder), str(file))


def _read_model_table(model: str, table: Mapping[str, Any], file: Path, draft: _Draft) -> None:
    place = f"{file}: [models.{model}]"
    for key, value in table.items():
        check_key(key, MODEL_FIELDS, SERVER_FIELDS, place, "the top of the file, before the first table")
        converted = MODEL_FIELDS[key].convert(value, f"{place} {key}")
        if key == "path":
            converted = _find(converted, file.absolute().parent, place)
        elif key == "names":
            converted = read_names(converted, file.absolute().parent)
        draft.set_model(model, key, converted, str(file))


def _read_environment(environment: Mapping[str, str], draft: _Draft) -> None:
    ours, warnings = our_variables(environment)
    draft.warnings += warnings
    for name, text in ours.items():
        _read_variable(VARIABLES[name], text, draft)


def _read_familiar(environment: Mapping[str, str], draft: _Draft) -> None:
    """Last, because only what no other place says is taken from variables that may be meant for others."""
    found = familiar(environment, draft.values, draft.models.values())
    draft.warnings += found.warnings
    for name, (value, variables) in found.values.items():
        draft.set(name, value, f"environment {variables}")


def _read_variable(variable: Field, text: str, draft: _Draft) -> None:
    origin, place = f"environment {variable.variable}", f"the environment variable {variable.variable}"
    if variable.name == "models":
        _read_models([part.strip() for part in text.split(",") if part.strip()], place, origin, draft)
    else:
        draft.set(variable.name, absolute(variable.name, variable.parse(text, place), Path()), origin)


def _read_arguments(arguments: Mapping[str, Any], draft: _Draft) -> None:
    for name, value in arguments.items():
        if name not in SERVER_FIELDS:
            raise ConfigError(f"unknown setting {name!r}{nearest(name, SERVER_FIELDS)}")
        if value is None or value in ((), []):
            continue
        option = SERVER_FIELDS[name].option
        if name == "models":
            _read_models(value, "--model", COMMAND_LINE, draft)
            continue
        draft.set(name, absolute(name, SERVER_FIELDS[name].given(value, option), Path()), COMMAND_LINE)


def _read_models(texts: Iterable[str], place: str, origin: str, draft: _Draft) -> None:
    seen: set[str] = set()
    for text in texts:
        name, path = split_model(text)
        if name in seen:
            raise ConfigError(f"{place}: the model {name!r} is given twice")
        seen.add(name)
        draft.set_model(name, "path", _find(path, Path(), f"{place} {name}"), origin)


def _find(path: str, folder: Path, place: str) -> str:
    try:
        return find_model(path, folder)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None


def _check_models(models: Mapping[str, Mapping[str, Any]], repository: str | None) -> None:
    for name, values in models.items():
        check_model_name(name)
        if "path" not in values and repository is not None:
            raise ConfigError(f"[models.{name}] has no path, and the model repository {repository} has no such model")
        if "path" not in values:
            raise ConfigError(f"[models.{name}] has no path: which ONNX file is it? For example path = {name}.onnx")


def check(config: ServerConfig, bind: str) -> None:
    """What no field can tell alone. `bind` is the name of that field and its source."""
    if not config.formats:
        raise ConfigError("formats is empty: no picture could be accepted; expected at least one, for example jpeg")
    check_forms(config.bind, bind)
    for name, text in config.chain.items():
        check_model_name(name)
        read_chain(name, text)
        if name in config.models:
            raise ConfigError(f"chain {name!r} is called like a model; give it another name")
    for name, model in config.models.items():
        limit = model.max_batch_size or config.max_batch_size or USUAL_BATCH
        if model.preferred_batch_size is not None and model.preferred_batch_size > limit:
            raise ConfigError(
                f"[models.{name}] preferred_batch_size is {model.preferred_batch_size}, but a batch of this model "
                f"holds at most {limit} (max_batch_size)"
            )
