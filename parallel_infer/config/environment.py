"""Which variables of the environment are ours, which are somebody else's that look like it, and which are misspelt.

Kubernetes puts variables named after a Service into every container beside it, Docker does so for links: a Service
called `parallel-infer` makes `PARALLEL_INFER_PORT=tcp://10.96.0.7:5555` and a dozen more. HOST, PORT and
MAX_BATCH_SIZE are exported by shells, compilers' environments and platforms for ends of their own. None of these may
keep a server from starting.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parallel_infer.config.addresses import absolute_address, is_local, is_local_name, tcp_address
from parallel_infer.config.fields import FLEET_FIELDS, FLEET_PREFIX, PREFIX, SERVER_FIELDS, Field, show
from parallel_infer.errors import ConfigError

# variables of ours that are not fields: the configuration file, what client commands need, what the build needs
OTHER_VARIABLES = {PREFIX + name for name in ("CONFIG", "SERVER", "KEY", "PUBLISH", "PYTHON")}
OTHER_VARIABLES |= {FLEET_PREFIX + name.upper() for name in FLEET_FIELDS}
VARIABLES: dict[str, Field] = {field.variable: field for field in SERVER_FIELDS.values()}
FAMILIAR = ("MAX_BATCH_SIZE", "HOST", "PORT")
"""Names without our prefix, as users of other servers know them."""
ROUTE_PREFIX = PREFIX + "ROUTE_"
"""Of the settings of a router (`route_sources`)."""

_SURE, _LIKELY = 0.75, 0.6  # how alike names are that stand for one another: surely a slip of the pen, or perhaps
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables and Docker's legacy links
_ORCHESTRATOR = (
    r"SERVICE_HOST",
    r"SERVICE_PORT(?:_\w+)?",
    r"PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?",
    r"ENV_\w+",
)
_OF_ORCHESTRATOR = re.compile(rf"(?:\w+_)?(?:{'|'.join(_ORCHESTRATOR)})")
_BY_VALUE = (("PORT", re.compile(r"(?:tcp|udp|sctp)://\S+")), ("NAME", re.compile(r"(?:/[\w.-]+){2}")))


@dataclass(frozen=True, slots=True)
class Familiar:
    """What the variables without our prefix say, as far as it can be followed."""

    values: Mapping[str, tuple[Any, str]]  # by field: the value, and the names of the variables
    warnings: tuple[str, ...]


def is_of_orchestrator(name: str, text: str) -> bool:
    """Whether Kubernetes or Docker made a variable with our prefix, for a service or link that is called like us."""
    rest = name.removeprefix(PREFIX)
    if _OF_ORCHESTRATOR.fullmatch(rest):
        return True
    return any(rest.rpartition("_")[2] == end and form.fullmatch(text.strip()) for end, form in _BY_VALUE)


def our_variables(environment: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Variables that set a field, by name, and what to warn of. Raises ConfigError for one that is surely misspelt."""
    ours: dict[str, str] = {}
    warnings: list[str] = []
    for name in sorted(name for name in environment if name.startswith(PREFIX)):
        if name.startswith(ROUTE_PREFIX):
            continue  # a router's
        text = environment[name]
        if not text.strip() or name in OTHER_VARIABLES or is_of_orchestrator(name, text):
            continue
        if name in VARIABLES:
            ours[name] = text
        elif close := _closest(name, _SURE):
            raise ConfigError(f"unknown environment variable {name}; did you mean {close}?")
        else:
            hint = f"; did you mean {close}?" if (close := _closest(name, _LIKELY)) else ""
            warnings.append(f"the environment variable {name} is no setting and is ignored{hint}")
    return ours, warnings


def familiar(
    environment: Mapping[str, str], values: Mapping[str, Any], models: Iterable[Mapping[str, Any]]
) -> Familiar:
    """HOST, PORT and MAX_BATCH_SIZE, where no other place sets what they stand for.

    `values` and `models` are the fields that other places set. What makes no sense, or would keep the server from
    starting, is somebody else's and passed over with a warning.
    """
    given = {name: text.strip() for name in FAMILIAR if (text := environment.get(name, "")).strip()}
    found: dict[str, tuple[Any, str]] = {}
    warnings: list[str] = []
    if "MAX_BATCH_SIZE" in given and "max_batch_size" not in values:
        try:
            found["max_batch_size"] = _batch_size(given["MAX_BATCH_SIZE"], models), "MAX_BATCH_SIZE"
        except ConfigError as error:
            warnings.append(_passed_over("MAX_BATCH_SIZE", str(error), "max_batch_size"))
    if "bind" not in values:
        open_to_all = values.get("keys") is not None or bool(values.get("insecure"))
        sound = {}
        for name, reason in _address_parts(given, open_to_all):
            if reason:
                warnings.append(_passed_over(name, reason, "bind"))
            else:
                sound[name] = given[name]
        if sound:
            address = tcp_address(sound.get("HOST", "127.0.0.1"), sound.get("PORT", "5555"))
            found["bind"] = [absolute_address(address, Path())], " and ".join(sorted(sound))
    return Familiar(found, tuple(warnings))


def _closest(name: str, likeness: float) -> str:
    """The variable whose part behind the prefix is most like it; "" where none is."""
    known = {other.removeprefix(PREFIX): other for other in (*VARIABLES, *sorted(OTHER_VARIABLES))}
    close = difflib.get_close_matches(name.removeprefix(PREFIX).upper(), known, n=1, cutoff=likeness)
    return known[close[0]] if close else ""


def _batch_size(text: str, models: Iterable[Mapping[str, Any]]) -> int:
    size: int = SERVER_FIELDS["max_batch_size"].parse(text, "it")
    for model in models:
        preferred = model.get("preferred_batch_size") or 0
        if preferred > size and model.get("max_batch_size") is None:
            raise ConfigError(f"it is {size}, less than a model's preferred_batch_size of {preferred}")
    return size


def _address_parts(given: Mapping[str, str], open_to_all: bool) -> Iterator[tuple[str, str]]:
    """HOST and PORT, those that are given, each with why it cannot be followed, or ""."""
    if "HOST" in given:
        host, reason = given["HOST"], ""
        if not is_local_name(host.strip("[]")):
            reason = f"it is {show(host)}, neither an IP address nor a network interface of this machine"
        elif not open_to_all and not is_local(tcp_address(host, "1")):
            reason = f"it is {show(host)}, which other machines can reach, and nothing says who may connect"
        yield "HOST", reason
    if "PORT" in given:
        port = given["PORT"]
        sound = port.isascii() and port.isdecimal() and int(port) <= 65535
        yield "PORT", "" if sound else f"it is {show(port)}; expected 0 to 65535"


def _passed_over(name: str, reason: str, field: str) -> str:
    ours = SERVER_FIELDS[field]
    return f"the environment variable {name} is passed over: {reason}; {ours.variable} or {ours.option} sets {field}"
