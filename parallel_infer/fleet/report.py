"""How a fleet is doing, in words: pure functions of what the head says about Serve's applications."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from parallel_infer.fleet.serve_file import application_names

_WHAT = ("the router", "the servers")
_STATES = {
    "NOT_STARTED": "not started yet",
    "DEPLOYING": "being started or changed",
    "DEPLOY_FAILED": "could not be started",
    "RUNNING": "running",
    "UNHEALTHY": "not well",
    "DELETING": "being stopped",
}
_FAILED = ("DEPLOY_FAILED",)  # UNHEALTHY may pass: a replica is being replaced
_LONGEST = 2000  # characters of a message: a traceback's end says what it was


@dataclass(frozen=True, slots=True)
class Replica:
    """One of a deployment, on its machine."""

    machine: str
    state: str


@dataclass(frozen=True, slots=True)
class Part:
    """An application of a fleet: its router or its servers."""

    what: str
    status: str  # as Ray names it
    problem: str
    wanted: int
    replicas: tuple[Replica, ...]
    deployed: float  # seconds since the epoch

    @property
    def running(self) -> int:
        """Replicas that are up."""
        return sum(replica.state == "RUNNING" for replica in self.replicas)


def parts_of(found: Mapping[str, Any], fleet: str) -> list[Part]:
    """What of a fleet there is: nothing where it is not deployed."""
    names = zip(_WHAT, application_names(fleet), strict=True)
    applications = [(what, found["applications"].get(name)) for what, name in names]
    return [_part(what, application) for what, application in applications if application is not None]


def is_running(parts: list[Part]) -> bool:
    """Whether all of a fleet is as it was asked for."""
    return bool(parts) and all(part.status == "RUNNING" for part in parts)


def failed(parts: list[Part]) -> str:
    """What is in the way of it for good, or nothing."""
    return "; ".join(f"{part.what}: {part.problem or part.status}" for part in parts if part.status in _FAILED)


def in_words(part: Part) -> str:
    """One line about a part, and a line for each of its replicas."""
    state = _STATES.get(part.status, part.status)
    lines = [f"{part.what}: {state}, {part.running} of {part.wanted}"]
    lines += [f"  {replica.machine}: {replica.state.lower()}" for replica in part.replicas]
    return "\n".join([*lines, *([f"  {part.problem}"] if part.problem and part.status != "RUNNING" else [])])


def in_short(parts: list[Part]) -> str:
    """One line for all parts, while they change."""
    return "; ".join(_short(part) for part in parts)


def as_dict(part: Part) -> dict[str, Any]:
    """The same for programs."""
    replicas = [{"machine": replica.machine, "state": replica.state} for replica in part.replicas]
    facts = {"part": part.what, "status": part.status, "problem": part.problem, "wanted": part.wanted}
    return facts | {"running": part.running, "replicas": replicas}


def _part(what: str, application: Mapping[str, Any]) -> Part:
    deployments = list(application.get("deployments", {}).values())
    replicas = [
        Replica(str(replica.get("node_ip") or "no machine yet"), str(replica["state"]))
        for deployment in deployments
        for replica in deployment.get("replicas", ())
    ]
    said = [application.get("message", ""), *(deployment.get("message", "") for deployment in deployments)]
    wanted = sum(deployment.get("target_num_replicas") or 0 for deployment in deployments)
    problem = _shortened(next((text for text in reversed(said) if text), ""))
    deployed = float(application.get("last_deployed_time_s") or 0)
    return Part(what, str(application["status"]), problem, wanted, tuple(replicas), deployed)


def _short(part: Part) -> str:
    counts = Counter(replica.state.lower() for replica in part.replicas)
    states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "none yet"
    return f"{part.what}: {states}, {part.wanted} wanted{f' ({part.problem})' if part.problem else ''}"


def _shortened(text: str) -> str:
    """The line of a traceback that says what was wrong, or all of a text that is none."""
    named = [line.strip() for line in text.splitlines() if "ConfigError:" in line]
    if named:
        return named[-1].partition("ConfigError:")[2].strip()
    return text.strip()[-_LONGEST:]


def addresses(found: Mapping[str, Any], fleet: str) -> list[str]:
    """Where clients find a router of a fleet that runs: tcp://HOST:PORT."""
    known = []
    for name in application_names(fleet):
        application = found["applications"].get(name) or {}
        route = ((application.get("deployed_app_config") or {}).get("args") or {}).get("route")
        if route is None:
            continue
        for deployment in application.get("deployments", {}).values():
            for replica in deployment.get("replicas", ()):
                host = replica.get("node_ip") if route["router_host"] == "auto" else route["router_host"]
                known += [f"tcp://{host}:{route['port']}"] if replica["state"] == "RUNNING" else []
    return sorted(set(known))
