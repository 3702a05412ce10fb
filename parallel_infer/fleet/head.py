"""Ray's head over its REST interface, the port of its dashboard: nothing of Ray has to be installed for it."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from parallel_infer.errors import ConfigError, InferError

DEFAULT = "http://127.0.0.1:8265"
_APPLICATIONS = "/api/serve/applications/"
_NODES = "/api/v0/nodes?detail=1&limit=10000"
_LONGEST_ANSWER = 64_000_000  # bytes
_SHOWN = 500  # characters of what the head says


class HeadUnavailable(InferError):
    """No Ray head answers, or something else does."""

    code = "HEAD_UNAVAILABLE"


class Head:
    """The head at an address http://HOST:PORT. Raises ConfigError for any other form."""

    def __init__(self, address: str, token: str = "", timeout: float = 30.0) -> None:
        self.address = checked_head(address)
        self._token, self._timeout = token, timeout
        # never through a proxy of the environment: a head is in one's own network
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def applications(self) -> dict[str, Any]:
        """What Serve runs, as Ray's ServeInstanceDetails. Raises HeadUnavailable, as all of these do."""
        found = self._ask("GET", _APPLICATIONS)
        if not isinstance(found, dict) or not isinstance(found.get("applications"), dict):
            raise HeadUnavailable(f"{self.address} answers, but not as Ray's dashboard does; is this the head's port?")
        return found

    def deploy(self, file: dict[str, Any]) -> None:
        """Have Serve run the applications of a file, and no others that came from files."""
        self._ask("PUT", _APPLICATIONS, file)

    def nodes(self) -> list[dict[str, Any]]:
        """The machines that are up: `node_ip`, `resources_total` and more of each."""
        found = self._ask("GET", _NODES)
        try:
            nodes = found["data"]["result"]["result"]
            return [node for node in nodes if node["state"] == "ALIVE"]
        except (KeyError, TypeError):
            raise HeadUnavailable(f"{self.address} does not tell its machines; is it Ray 2.9 or newer?") from None

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, content, method=method)  # noqa: S310  # http, checked
        request.add_header("Content-Type", "application/json")
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                text = response.read(_LONGEST_ANSWER)
            return json.loads(text) if text.strip() else None
        except urllib.error.HTTPError as error:
            raise HeadUnavailable(self._refused(error)) from None
        except (OSError, urllib.error.URLError) as error:
            raise HeadUnavailable(self._unreachable(error)) from None
        except ValueError:
            raise HeadUnavailable(
                f"{self.address} answers, but not as Ray's dashboard does; is this its port?"
            ) from None

    def _unreachable(self, error: OSError) -> str:
        reason = getattr(error, "reason", error)
        why = getattr(reason, "strerror", None) or str(reason)
        return (
            f"no Ray head answers at {self.address}: {why}. Give the address of its dashboard with --ray, and start it "
            "with `ray start --head --dashboard-host 0.0.0.0` where it is another machine"
        )

    def _refused(self, error: urllib.error.HTTPError) -> str:
        said = error.read(_LONGEST_ANSWER).decode(errors="replace").strip()
        if error.code in (401, 403):
            return f"{self.address} asks for a token: set RAY_AUTH_TOKEN"
        if error.code == 404:
            return f"{self.address} has no Ray Serve: install ray[serve] on the head, not ray alone, and start it again"
        return f"{self.address} refused it ({error.code}): {said[-_SHOWN:] or error.reason}"


def checked_head(address: str) -> str:
    """http://HOST:PORT without a path. Raises ConfigError."""
    parts = urllib.parse.urlsplit(address if "://" in address else f"none://{address}")
    try:
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port is not None
    except ValueError:
        sound = False
    if not sound or parts.path not in ("", "/") or parts.query:
        raise ConfigError(
            f"--ray (or RAY_ADDRESS) is {address!r}; expected the dashboard of Ray's head, for example {DEFAULT}"
        )
    return f"{parts.scheme}://{parts.netloc}"


def is_loopback(head: Head) -> bool:
    """Whether the head is reached by this machine alone, and so are its nodes."""
    host = urllib.parse.urlsplit(head.address).hostname or ""
    return host == "localhost" or host.startswith("127.") or host == "::1"


def token() -> str:
    """The token of Ray's own authentication, where it is set."""
    return os.environ.get("RAY_AUTH_TOKEN", "").strip()
