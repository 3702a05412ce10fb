"""A router as users start it, with real sockets: members that die, stand still, come and go."""

import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from parallel_infer import Client
from parallel_infer.errors import BadInput, Poison, UnknownModel
from tests.engine.serving import Server, eventually
from tests.router.processes import Echo, Router, as_members, freeze, payload

StartEcho = Callable[..., Echo]
StartRouter = Callable[..., Router]


def joined(client: Client) -> int:
    """Members that are up."""
    return sum(member["state"] == "up" for member in client.status()["members"].values())


def check(client: Client, count: int, size: int = 64, timeout: float = 30.0, first: int = 0) -> None:
    """Every job is answered with its own payload."""
    jobs = [payload(first + number, size) for number in range(count)]
    for job, answer in zip(jobs, client.infer_many("echo", jobs, timeout=timeout), strict=True):
        np.testing.assert_array_equal(answer.tensors["y"], job["x"])  # type: ignore[union-attr]


def test_a_server_behind_a_router_answers_as_it_does_itself(server: Server, route: StartRouter):
    router = route("--member", f"engine={server.address}")
    inputs = {"x": np.arange(4, dtype=np.float32), "y": np.ones(4, np.float32)}
    with router.client() as client, server.client() as direct:
        facts = direct.models()
        seen = client.models()
        assert [model["name"] for model in seen] == [model["name"] for model in facts]
        assert all(model["members"] == ["engine"] for model in seen)
        assert client.ready()
        assert client.status()["models"].keys() == direct.status()["models"].keys()
        picture = (np.arange(320 * 320 * 3) % 251).astype(np.uint8).reshape(320, 320, 3)
        ours, theirs = client.infer("detector", picture), direct.infer("detector", picture)
        np.testing.assert_array_equal(ours.boxes, theirs.boxes)
        with pytest.raises(UnknownModel, match="detector"):
            client.infer("nothing", picture)
        with pytest.raises(BadInput, match="own address"):
            client.trace(0.1)
    assert inputs
    assert router.stop() == 0


def test_members_that_die_and_stand_still_lose_nothing(echo: StartEcho, route: StartRouter):
    members = [echo(f"e{number}", 0.02) for number in range(3)]
    router = route(*as_members(*members), "--silence-ms", "500")
    with router.client() as client:
        eventually(lambda: joined(client) == 3)
        jobs = [client.submit("echo", payload(number)) for number in range(300)]
        members[0].kill()
        freeze(members[1])
        jobs += [client.submit("echo", payload(number)) for number in range(300, 600)]
        for number, job in enumerate(jobs):
            np.testing.assert_array_equal(job.result(30).tensors["y"], payload(number)["x"])
        members[0].start()
        members[1].signal(signal.SIGCONT)
        eventually(lambda: joined(client) == 3)
        check(client, 300)


def test_without_sending_again_jobs_are_lost(echo: StartEcho, route: StartRouter):
    """The control of the test above."""
    members = [echo(f"e{number}", 0.5) for number in range(2)]
    router = route(*as_members(*members), "--most-lost", "1")
    with router.client() as client:
        eventually(lambda: joined(client) == 2)
        jobs = [client.submit("echo", payload(number)) for number in range(20)]
        eventually(lambda: sum(member["under_way"] for member in client.status()["members"].values()) == 20)
        members[0].kill()
        errors = [error for job in jobs if (error := job.exception(30)) is not None]
        assert errors
        assert all(isinstance(error, Poison) for error in errors)


def test_the_death_of_the_router_loses_nothing(echo: StartEcho, route: StartRouter):
    member = echo("e0", 0.02)
    router = route(*as_members(member))
    with router.client() as client:
        jobs = [client.submit("echo", payload(number)) for number in range(200)]
        router.kill()
        router.start()
        for number, job in enumerate(jobs):
            np.testing.assert_array_equal(job.result(30).tensors["y"], payload(number)["x"])


def test_members_of_a_file_come_and_go(echo: StartEcho, route: StartRouter, place: Path):
    first, second = echo("e0"), echo("e1")
    listed = place / "members"
    listed.write_text(f"one {first.address}  # the first\n")
    router = route("--members", f"file:{listed}", "--look-ms", "50")
    with router.client() as client:
        eventually(lambda: joined(client) == 1)
        listed.write_text(f"one {first.address}\ntwo {second.address}\n")
        eventually(lambda: joined(client) == 2)
        listed.write_text("nonsense\n")
        eventually(lambda: "problems" in client.status()["router"])
        (problem,) = client.status()["router"]["problems"]
        assert "line 1" in problem
        assert "nonsense" in problem
        assert joined(client) == 2
        listed.write_text(f"two {second.address}\n")
        eventually(lambda: client.status()["members"].keys() == {"two"})
        check(client, 50)


def test_what_cannot_be_a_member_is_named(echo: StartEcho, route: StartRouter, place: Path):
    member = echo("e0")
    (place / "link").symlink_to(place / "e0")
    own = f"ipc://{place}/router"
    router = route(
        *("--member", f"good={member.address}", "--member", f"loop={own}", "--member", f"nobody=ipc://{place}/none"),
        *("--member", f"again=ipc://{place}/link", "--member", "lost=tcp://no.such.host.invalid:5555"),
    )
    expected = {"loop": "a loop", "nobody": "no such socket", "lost": "does not resolve"}

    def problems() -> dict[str, str]:
        return {name: found["problem"] for name, found in client.status()["members"].items()}

    with router.client() as client:
        eventually(lambda: all(text in problems()[name] for name, text in expected.items()))
        eventually(lambda: "the same server" in problems()["good"] + problems()["again"])
        check(client, 20)
        assert joined(client) == 1
    log = router.log.read_text()
    assert all(text in log for text in expected.values())


def test_a_router_of_routers(echo: StartEcho, route: StartRouter):
    inner = [route(*as_members(echo(f"e{number}")), name=f"inner{number}") for number in range(2)]
    outer = route(*(word for router in inner for word in ("--member", router.address)), name="outer")
    with outer.client() as client:
        eventually(lambda: joined(client) == 2)
        check(client, 100, size=160_000)
        assert client.ready()
