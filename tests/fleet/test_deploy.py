"""`parallel-infer deploy` as people type it, against a head that answers over HTTP as Ray's does."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from parallel_infer.cli.deploy import command
from parallel_infer.errors import ConfigError
from parallel_infer.fleet.head import Head
from tests.fleet.fake_head import FakeHead, listening, machine

TEXT = "[fleet]\nnodes = 2\ncpus = 2\nresources = { vision = 1 }\n"


@pytest.fixture
def head() -> Iterator[FakeHead]:
    with listening(FakeHead([machine(f"10.0.0.{number}", vision=1.0) for number in (1, 2, 3)])) as found:
        yield found


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "PARALLEL_INFER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "server.toml"
    file.write_text(TEXT)
    return file


def deploy(head: FakeHead | str, *words: str | Path) -> Result:
    address = head if isinstance(head, str) else head.address
    return CliRunner().invoke(command, ["--ray", address, *map(str, words)])


def error(result: Result) -> str:
    """What a named error says; anything else is a fault."""
    assert result.exception is not None
    assert not isinstance(result.exception, SystemExit), result.output
    return f"{getattr(result.exception, 'code', '')}: {result.exception}"


def names(head: FakeHead) -> list[str]:
    return [application["name"] for application in head.given[-1]["applications"]]


def test_a_fleet_is_deployed_looked_at_and_taken_down(head: FakeHead, config: Path) -> None:
    result = deploy(head, "--config", config)
    assert result.exit_code == 0, result.output
    assert names(head) == ["main-router", "main-nodes"]
    assert "the servers: running, 2 of 2\n  10.0.0.1: running\n  10.0.0.2: running" in result.output
    assert "clients connect to tcp://10.0.0.1:5555" in result.output
    facts = json.loads(deploy(head, "--status", "--json").stdout)
    assert facts["running"]
    assert facts["fleets"]["main"]["addresses"] == ["tcp://10.0.0.1:5555"]
    assert deploy(head, "--down").exit_code == 0
    assert names(head) == []
    assert deploy(head, "--status").exit_code == 1
    assert "no fleet main runs there; there is no fleet at all" in error(deploy(head, "--down", "--name", "main"))
    assert "there is no fleet at all; name one with --config or --name" in error(deploy(head, "--down"))


def test_a_rehearsal_prints_the_file_and_asks_nobody(head: FakeHead, config: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with kubernetes-validate")
    result = deploy(head, "--config", config, "--dry-run", "--nodes", "1..3")
    assert result.exit_code == 0
    printed = yaml.safe_load(result.stdout)
    assert printed["applications"][1]["deployments"][0]["autoscaling_config"]["max_replicas"] == 3
    assert "checked by" in result.stderr
    assert not head.given
    assert not head.tokens
    same = json.loads(deploy(head, "--config", config, "--dry-run", "--nodes", "1..3", "--json").stdout)
    assert same == printed


def test_what_else_runs_there_stays(head: FakeHead, config: Path) -> None:
    other = {"name": "mine", "import_path": "my.app:build", "route_prefix": "/mine", "deployments": []}
    head.deploy({"applications": [other]})
    assert deploy(head, "--config", config).exit_code == 0
    assert head.given[-1]["applications"][0] == other
    assert deploy(head, "--down").exit_code == 0
    assert head.given[-1]["applications"] == [other]


def test_two_fleets_of_one_name(head: FakeHead, config: Path, tmp_path: Path) -> None:
    assert deploy(head, "--config", config).exit_code == 0
    assert deploy(head, "--config", config, "--nodes", "3").exit_code == 0  # the same fleet, changed
    other = tmp_path / "other.toml"
    other.write_text(TEXT)
    said = error(deploy(head, "--config", other))
    assert f"a fleet main runs there already, deployed from {socket.gethostname()}:{config}" in said
    assert "--replace" in said
    assert len(head.given) == 2
    assert deploy(head, "--config", other, "--replace").exit_code == 0
    third = tmp_path / "third.toml"
    third.write_text(TEXT.replace("[fleet]", '[fleet]\nname = "second"'))
    assert deploy(head, "--config", third).exit_code == 0
    assert set(names(head)) == {"main-router", "main-nodes", "second-router", "second-nodes"}
    assert "the fleets there are main, second; name one" in error(deploy(head, "--down"))


def test_a_name_that_is_taken_by_something_else(head: FakeHead, config: Path) -> None:
    head.deploy({"applications": [{"name": "main-nodes", "import_path": "my.app:build", "deployments": []}]})
    assert "an application main-nodes already that is no fleet (my.app:build)" in error(
        deploy(head, "--config", config)
    )


def test_too_few_machines_are_counted_and_what_each_lacks_is_named(head: FakeHead, config: Path) -> None:
    head.machines[1]["resources_total"] = {"CPU": 1.0}
    del head.machines[2]
    said = error(deploy(head, "--config", config))
    assert "needs 2 machines with 2 CPU, 1 vision each, and the cluster has 1 of them" in said
    assert "10.0.0.2 lacks 2 CPU (it has 1), 1 vision (it has 0)" in said
    assert not head.given
    assert deploy(head, "--config", config, "--nodes", "1..3").exit_code == 0  # there is room for the least
    assert deploy(head, "--config", config, "--growing").exit_code == 0


def test_what_ray_says_is_wrong_is_told_in_one_line(config: Path) -> None:
    trace = "ray::Replica()\n  File x\nparallel_infer.errors.ConfigError: on the machine 10.0.0.2: model a: no file\n"
    machines = [machine(f"10.0.0.{number}", vision=1.0) for number in (1, 2)]
    with listening(FakeHead(machines, ["DEPLOYING", "DEPLOY_FAILED"], trace)) as head:
        said = error(deploy(head, "--config", config))
    assert "FLEET_FAILED: the fleet main does not run" in said
    assert "on the machine 10.0.0.2: model a: no file" in said
    assert "File x" not in said


def test_a_fleet_that_does_not_get_to_run_names_the_option(config: Path) -> None:
    machines = [machine(f"10.0.0.{number}", vision=1.0) for number in (1, 2)]
    with listening(FakeHead(machines, ["DEPLOYING"])) as head:
        said = error(deploy(head, "--config", config, "--timeout", "0.01"))
    assert "does not run after 0.01 s (--timeout)" in said
    assert "2 starting, 2 wanted" in said


def test_a_head_that_is_not_there_or_is_something_else(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = f"http://127.0.0.1:{taken.getsockname()[1]}"
    said = error(deploy(free, "--config", config))
    assert f"HEAD_UNAVAILABLE: no Ray head answers at {free}: Connection refused" in said
    assert "--ray" in said
    for refusal, expected in (
        ((200, "<html>"), "not as Ray's dashboard does"),
        ((200, "{}"), "not as Ray's dashboard does"),
        ((404, "no"), "install ray[serve] on the head"),
        ((401, "no"), "set RAY_AUTH_TOKEN"),
        ((500, "it broke"), "refused it (500): it broke"),
    ):
        with listening(FakeHead([])) as head:
            head.refusal = refusal
            assert expected in error(deploy(head, "--status"))


@pytest.mark.parametrize("address", ["head", "auto", "10.0.0.1:6379", "ray://head:10001", "http://head", "http://h:x"])
def test_an_address_that_is_no_dashboard(address: str, config: Path) -> None:
    with pytest.raises(ConfigError, match="--ray .or RAY_ADDRESS. is .*expected the dashboard of Ray's head"):
        Head(address)


def test_tokens_of_ray_are_sent(head: FakeHead, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "abc")
    deploy(head, "--status")
    assert set(head.tokens) == {"Bearer abc"}


def test_open_servers_must_be_meant(config: Path) -> None:
    said = error(deploy("http://10.255.255.1:8265", "--config", config, "--dry-run"))
    assert "insecure = true" in said
    config.write_text("insecure = true\n" + TEXT)
    assert deploy("http://10.255.255.1:8265", "--config", config, "--dry-run").exit_code == 0


def test_without_a_file_there_is_no_fleet(head: FakeHead, config: Path) -> None:
    assert "Give --config" in error(deploy(head))


def test_a_fleet_that_is_not_well_is_one(head: FakeHead, config: Path) -> None:
    deploy(head, "--config", config)
    head.states = ["UNHEALTHY"]
    result = deploy(head, "--status")
    assert result.exit_code == 1
    assert "fleet main: not running" in result.output
    assert "the servers: not well, 0 of 2" in result.output
