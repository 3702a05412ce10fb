"""Whether a fleet fits on its cluster, and beside what runs there: pure functions of what the head says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from parallel_infer.config.fleet import Fleet
from parallel_infer.errors import ConfigError
from parallel_infer.fleet.serve_file import PATH, application_names

_KEPT = ("proxy_location", "http_options", "grpc_options", "target_capacity")  # of Serve itself


def check_room(fleet: Fleet, nodes: Iterable[Mapping[str, Any]]) -> None:
    """Raises ConfigError where fewer machines than the least could ever take a server."""
    needed = {"CPU": fleet.config.cpus, "GPU": fleet.config.gpus, **fleet.config.resources}
    needed = {name: amount for name, amount in needed.items() if amount}
    lacking = {str(node["node_ip"]): _lacking(node.get("resources_total") or {}, needed) for node in nodes}
    fitting = [node for node, missing in lacking.items() if not missing]
    if len(fitting) >= fleet.least:
        return
    wants = ", ".join(f"{amount:g} {name}" for name, amount in needed.items()) or "nothing"
    short = "; ".join(f"{node} lacks {missing}" for node, missing in sorted(lacking.items()) if missing)
    raise ConfigError(
        f"the fleet {fleet.config.name} needs {fleet.least} machines with {wants} each, and the cluster has "
        f"{len(fitting)} of them{f' ({short})' if short else ''}. Start more machines (`ray start --address ...`), or "
        "change nodes, cpus, gpus or resources of [fleet]; --growing where the cluster adds machines by itself"
    )


def _lacking(has: Mapping[str, float], needed: Mapping[str, float]) -> str:
    missing = [f"{amount:g} {name} (it has {has.get(name, 0):g})" for name, amount in needed.items()]
    return ", ".join(text for text, name in zip(missing, needed, strict=True) if has.get(name, 0) < needed[name])


def merged(file: dict[str, Any], found: Mapping[str, Any], fleet: str) -> dict[str, Any]:
    """A file for Serve with what it runs already beside: to it, what a file does not name is to be removed.

    The applications of `fleet` are those of the file. What was deployed by other ways than a file stays by itself.
    """
    ours = application_names(fleet)
    others = [
        application["deployed_app_config"]
        for name, application in found["applications"].items()
        if name not in ours and application.get("deployed_app_config")
    ]
    options = {name: found[name] for name in _KEPT if found.get(name) is not None}
    return {**file, **options, "applications": [*others, *file["applications"]]}


def check_owner(file: Mapping[str, Any], found: Mapping[str, Any], fleet: str) -> None:
    """Raises ConfigError where the names of the applications are taken by something else, or by another fleet."""
    for name in application_names(fleet):
        application = found["applications"].get(name)
        if application is None:
            continue
        path = (application.get("deployed_app_config") or {}).get("import_path", "")
        if not path.startswith(PATH):
            raise ConfigError(
                f"Ray runs an application {name} already that is no fleet ({path or 'not deployed from a file'}); "
                "give this fleet another name ([fleet] name)"
            )
    theirs, here = origin_of(found["applications"], fleet), _origin(file["applications"])
    if theirs and theirs != here:
        raise ConfigError(
            f"a fleet {fleet} runs there already, deployed from {theirs}, and this would replace it; give one of them "
            "another name ([fleet] name), or say --replace where both are the same fleet"
        )


def origin_of(applications: Mapping[str, Mapping[str, Any]], fleet: str) -> str:
    """Where the fleet that runs was deployed from, HOST:FILE; empty where none does."""
    application = applications.get(application_names(fleet)[1]) or {}
    return _origin([application.get("deployed_app_config") or {}])


def _origin(applications: Iterable[Mapping[str, Any]]) -> str:
    for application in applications:
        for deployment in application.get("deployments") or ():
            if "origin" in (deployment.get("user_config") or {}):
                return str(deployment["user_config"]["origin"])
    return ""
