"""A router as users start it, with real sockets: members that die, stand still, come and go."""

import contextlib
import json
import shutil
import signal
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from click.testing import CliRunner

from parallel_infer import Client
from parallel_infer.cli import main
from parallel_infer.errors import BadInput, ModelRejected, Poison, UnknownModel
from tests.engine.serving import Server, eventually
from tests.router.processes import Echo, Router, as_members, closing_all, freeze, payload

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


@pytest.fixture(scope="module")
def behind(server: Server) -> Iterator[Router]:
    """A router with doors and metrics in front of the shared server."""
    folder = Path(tempfile.mkdtemp(prefix="pi-", dir="/tmp"))
    doors = ("--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--silence-limit-ms", "3000")
    with closing_all() as processes:
        router = Router(folder, "--member", f"engine={server.address}", *doors)
        processes.append(router)
        yield router
        assert router.stop() == 0, router.log.read_text()
    shutil.rmtree(folder)


def test_a_server_behind_a_router_answers_as_it_does_itself(server: Server, behind: Router):
    with behind.client() as client, server.client() as direct:
        seen = client.models()
        assert [model["name"] for model in seen] == [model["name"] for model in direct.models()]
        assert all(model["members"] == ["engine"] for model in seen)
        assert client.ready()
        ours, theirs = client.status(), direct.status()
        assert ours["models"].keys() == theirs["models"].keys()
        assert ours["workers"].keys() == {f"engine/{name}" for name in theirs["workers"]}
        picture = (np.arange(320 * 320 * 3) % 251).astype(np.uint8).reshape(320, 320, 3)
        np.testing.assert_array_equal(client.infer("detector", picture).boxes, direct.infer("detector", picture).boxes)
        with pytest.raises(UnknownModel, match="detector"):
            client.infer("nothing", picture)
        with pytest.raises(BadInput, match="own address"):
            client.trace(0.1)


def test_models_are_loaded_and_unloaded_at_every_member(behind: Router, tensor_models: Path):
    with behind.client(timeout=60.0) as client:
        loaded = client.load("extra", tensor_models / "pair.onnx")
        assert loaded["members"] == ["engine"]
        eventually(lambda: "extra" in [model["name"] for model in client.models()])
        with pytest.raises(ModelRejected, match="engine"):
            client.load("broken", Path(__file__))
        client.unload("extra")
        eventually(lambda: "extra" not in [model["name"] for model in client.models()])


def test_commands_work_against_a_router(behind: Router):
    run = CliRunner().invoke
    address = ["--server", behind.address]
    assert run(main, ["health", *address]).exit_code == 0
    assert '"engine"' in run(main, ["status", *address, "--json"]).output
    assert "detector" in run(main, ["models", "list", *address]).output


def test_a_door_that_hangs_is_replaced(behind: Router):
    http = next(address for address in behind.addresses if address.startswith("http://"))
    (hung,) = [child for child in psutil.Process(behind.process.pid).children() if "http" in child.cmdline()[0]]
    hung.suspend()
    with behind.client() as client:
        eventually(lambda: client.status()["doors"]["http"]["restarts"] > 0 and not hung.is_running())
    eventually(lambda: is_live(http))


def is_live(http: str) -> bool:
    with contextlib.suppress(OSError):  # it is not listening again yet
        return bool(json.loads(urllib.request.urlopen(f"{http}/healthz", timeout=60).read())["live"])
    return False


def test_doors_stand_in_front_of_a_router_too(behind: Router, pictures: Path):
    http = next(address for address in behind.addresses if address.startswith("http://"))
    assert any(address.startswith("grpc://") for address in behind.addresses)
    ready = json.loads(urllib.request.urlopen(f"{http}/readyz", timeout=60).read())
    assert ready["ready"]
    assert ready["doors"] == {"http": "ready", "grpc": "ready"}
    metrics = urllib.request.urlopen(f"{http}/metrics", timeout=60).read().decode()
    assert 'parallel_infer_member_up{member="engine"} 1.0' in metrics
    picture = (pictures / "coffee.png").read_bytes()
    asked = urllib.request.Request(f"{http}/infer/detector", picture, {"Content-Type": "image/png"})
    assert json.loads(urllib.request.urlopen(asked, timeout=60).read())["predictions"]
    tensors = urllib.request.urlopen(f"{http}/v2/models/pair", timeout=60).read()
    assert json.loads(tensors)["inputs"]


def test_the_page_says_where_pictures_of_live_sources_are(behind: Router):
    http = next(address for address in behind.addresses if address.startswith("http://"))
    seen: list[bytes] = []

    def is_told() -> bool:
        seen.append(urllib.request.urlopen(f"{http}/page/source?name=camera", timeout=60).read())
        return bool(seen[-1])

    eventually(is_told)
    assert json.loads(seen[-1])["why"] == "a router records and shows nothing itself: ask a member at its own address"


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
    inner = route(*as_members(echo("e0")), name="inner")
    outer = route("--member", inner.address, *as_members(echo("e1")), name="outer")
    with outer.client() as client:
        eventually(lambda: joined(client) == 2)
        check(client, 100, size=160_000)
        assert client.ready()
