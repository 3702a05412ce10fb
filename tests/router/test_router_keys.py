"""Keys on both sides of a router: its clients show theirs to it, and it shows its own to its members."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from parallel_infer import Client
from parallel_infer.cli import main
from parallel_infer.errors import Unauthorized
from tests.engine.serving import eventually
from tests.router.processes import Echo, Router, as_members, payload

StartEcho = Callable[..., Echo]
StartRouter = Callable[..., Router]
TCP = ("--bind", "tcp://127.0.0.1:0")


def new_key(place: Path, name: str, *options: str) -> Path:
    """A key of the folder `place`/keys, for a client of this name."""
    key = place / f"{name}.key"
    place.mkdir(exist_ok=True)
    made = CliRunner().invoke(main, ["keys", "new", name, "--dir", str(place / "keys"), "--out", str(key), *options])
    assert made.exit_code == 0, made.output
    return key


def inner_key(place: Path) -> str:
    """The line with the server's public key, as a client's key file has it."""
    return next(line for line in (place / "camera.key").read_text().splitlines() if line.startswith("server"))


def problem(router: Router, key: Path | None = None) -> str:
    """What the router says of its only member."""
    with Client(router.address, key, timeout=30.0) as client:
        (member,) = client.status()["members"].values()
        return str(member["problem"])


def test_keys_on_both_sides(echo: StartEcho, route: StartRouter, place: Path):
    own, camera = new_key(place, "router", "--manage"), new_key(place, "camera")
    keys = ("--keys", str(place / "keys"))
    # a router stands in for a server: both let clients in by the same means
    inner = route(*TCP, *keys, *as_members(echo("e0")), name="inner")
    outer = route(*TCP, *keys, "--member", inner.address, "--key", str(own), name="outer")
    with Client(outer.address, camera, timeout=30.0) as client:
        assert client.infer("echo", payload(1)).tensors["y"].tobytes() == payload(1)["x"].tobytes()
        with pytest.raises(Unauthorized, match="--manage"):
            client.unload("echo")
        with pytest.raises(Unauthorized, match="--manage"):
            client.load_chain("new", "echo")
    with Client(outer.address, own, timeout=30.0) as client:
        client.unload("echo")  # passed on with the router's own key, which may
    unknown = new_key(place / "elsewhere", "stranger")
    with Client(outer.address, unknown, timeout=0.5) as client, pytest.raises(Exception, match="key"):
        client.infer("echo", payload(1))


def test_a_member_that_does_not_know_the_key_is_named(echo: StartEcho, route: StartRouter, place: Path):
    inner = route(*TCP, "--keys", str(new_key(place, "camera").parent / "keys"), *as_members(echo("e0")), name="inner")
    without = route("--member", inner.address, name="without")
    stranger = new_key(place / "elsewhere", "stranger")
    own = [line for line in stranger.read_text().splitlines() if not line.startswith("server")]
    stranger.write_text("\n".join([*own, inner_key(place), ""]))
    unknown = route("--member", inner.address, "--key", str(stranger), name="unknown")
    eventually(lambda: "asks for a key" in problem(without) or "option key" in problem(without))
    eventually(lambda: "does not know this router's key" in problem(unknown))


def test_a_key_file_that_is_none_is_refused(place: Path):
    refused = CliRunner().invoke(main, ["route", "--member", "tcp://127.0.0.1:1", "--key", str(place / "none")])
    assert refused.exit_code == 2
    assert "key" in refused.output
