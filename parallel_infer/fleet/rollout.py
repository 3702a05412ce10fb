"""Deploy a fleet, look at it and take it down, by what Ray's head says. What runs is Ray's business from then on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from parallel_infer.config.fleet import Fleet
from parallel_infer.errors import ConfigError, InferError
from parallel_infer.fleet.cluster import check_owner, check_room, merged
from parallel_infer.fleet.head import Head, is_loopback
from parallel_infer.fleet.report import Part, failed, in_short, is_running, parts_of
from parallel_infer.fleet.serve_file import PATH, application_names

_LOOK = 0.3  # seconds between two looks at the head, which tells nothing by itself

Progress = Callable[[str], None]


class FleetFailed(InferError):
    """A fleet does not get to run, or does not end."""

    code = "FLEET_FAILED"


def check_access(fleet: Fleet, head: Head) -> None:
    """Raises ConfigError where whoever reaches a machine could use its server, and nobody said that they may."""
    if fleet.server.get("keys") is None and not fleet.server.get("insecure") and not is_loopback(head):
        raise ConfigError(
            "the servers of a fleet can be reached from other machines, and nothing says who may connect. Set keys to "
            "a folder that every machine has (`parallel-infer keys` makes one), or insecure = true if everybody who "
            "reaches these machines may use them"
        )


def deploy(fleet: Fleet, file: dict[str, Any], head: Head, *, replaces: bool, grows: bool) -> dict[str, Any]:
    """Hand a fleet to Serve. What Serve said before is returned. Raises ConfigError, HeadUnavailable."""
    check_access(fleet, head)
    before = head.applications()
    if not replaces:
        check_owner(file, before, fleet.config.name)
    if not grows:
        check_room(fleet, head.nodes())
    head.deploy(merged(file, before, fleet.config.name))
    return before


def wait_running(name: str, head: Head, before: dict[str, Any], timeout: float, progress: Progress) -> list[Part]:
    """Wait until all of a fleet runs; `before` is what Serve said before it was deployed. Times are in seconds.

    Raises FleetFailed with what Ray says is wrong.
    """
    earlier = {part.what: part.deployed for part in parts_of(before, name)}
    end, last = time.monotonic() + timeout, ""
    while True:
        parts = parts_of(head.applications(), name)
        taken = bool(parts) and all(part.deployed != earlier.get(part.what) for part in parts)
        if taken and is_running(parts):
            return parts
        if taken and (why := failed(parts)):
            raise FleetFailed(f"the fleet {name} does not run: {why}")
        last = _told(in_short(parts), last, progress)
        if time.monotonic() > end:
            raise FleetFailed(f"the fleet {name} does not run after {timeout:g} s (--timeout): {last}")
        time.sleep(_LOOK)


def take_down(name: str, head: Head, timeout: float, progress: Progress) -> None:
    """Stop a fleet: its servers answer what they have. Raises ConfigError, HeadUnavailable, FleetFailed."""
    before = head.applications()
    if not parts_of(before, name):
        raise ConfigError(f"no fleet {name} runs there; {_known(before)}")
    head.deploy(merged({"applications": []}, before, name))
    end, last = time.monotonic() + timeout, ""
    while parts := parts_of(head.applications(), name):
        last = _told(in_short(parts), last, progress)
        if time.monotonic() > end:
            raise FleetFailed(f"the fleet {name} has not ended after {timeout:g} s (--timeout): {last}")
        time.sleep(_LOOK)


def fleets(found: dict[str, Any]) -> list[str]:
    """The fleets that Serve runs, by name."""
    ending = application_names("")[1]
    return sorted(
        name.removesuffix(ending)
        for name, application in found["applications"].items()
        if name.endswith(ending)
        and (application.get("deployed_app_config") or {}).get("import_path", "").startswith(PATH)
    )


def only_fleet(found: dict[str, Any]) -> str:
    """The one fleet that runs. Raises ConfigError where that is not clear."""
    names = fleets(found)
    if len(names) != 1:
        raise ConfigError(f"{_known(found)}; name one with --config or --name")
    return names[0]


def _known(found: dict[str, Any]) -> str:
    names = fleets(found)
    return f"the fleets there are {', '.join(names)}" if names else "there is no fleet at all"


def _told(now: str, last: str, progress: Progress) -> str:
    if now != last:
        progress(now)
    return now
