"""`doctor`: every verdict, and what it tells to do."""

from __future__ import annotations

import json
import resource
import socket
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from parallel_infer.cli import main
from parallel_infer.config.schema import ModelConfig, ServerConfig
from parallel_infer.inference.providers import CPU, Machine, OpenVino
from parallel_infer.shm.segment import FOLDER, PREFIX
from parallel_infer.supervisor.memory_report import SharedMemory
from parallel_infer.supervisor.plan import RingPlan
from parallel_infer.tools.doctor.findings import Finding, Verdict
from parallel_infer.tools.doctor.machine import (
    PACKAGES,
    cores_finding,
    files_finding,
    kernel_finding,
    memory_finding,
    nvidia_findings,
    package_findings,
    processor_finding,
    provider_findings,
    python_finding,
    runtime_findings,
)
from parallel_infer.tools.doctor.server import address_findings, left_over_findings, memory_findings
from tests.engine.serving import free_port

OK, WARNING, PROBLEM = Verdict.OK, Verdict.WARNING, Verdict.PROBLEM
MEBI = 1 << 20


def doctor(*arguments: str) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(main, ["doctor", "--json", *arguments])
    told: dict[str, Any] = json.loads(result.stdout)
    return result.exit_code, told


def test_this_machine_can_serve_a_model() -> None:
    code, told = doctor("--model", "pose=zoo:pose", "--bind", f"tcp://127.0.0.1:{free_port()}")
    problems = [finding for finding in told["findings"] if finding["verdict"] == "problem"]
    assert (code, told["ok"], problems) == (0, True, [])
    subjects = {finding["subject"] for finding in told["findings"]}
    assert {"python", "packages", "provider auto", "provider cuda", "processor", "cores", "memory"} <= subjects
    assert {"open files", "locked memory", "addresses", "models", "shared memory", "nvidia driver"} <= subjects


def test_a_wrong_model_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_text("this is no model")
    code, told = doctor("--model", f"broken={tmp_path / 'broken.onnx'}")
    problems = [finding for finding in told["findings"] if finding["verdict"] == "problem"]
    assert (code, told["ok"]) == (1, False)
    assert [finding["subject"] for finding in problems] == ["models"]
    assert "broken" in problems[0]["text"]


def test_a_wrong_configuration_is_a_problem_and_the_machine_is_looked_at() -> None:
    result = CliRunner().invoke(main, ["doctor", "--model", "x=zoo:nothing"])
    assert result.exit_code == 1
    assert "problem  configuration: --model x: no model 'nothing' is shipped" in result.stdout
    assert "ok       kernel" in result.stdout


def test_packages_are_those_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    needed = {requirement.split(">")[0].split(";")[0].strip() for requirement in project["dependencies"]}
    assert {names.split("|")[0] for names in PACKAGES} == needed


def _versions(**changes: str | None) -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for names in PACKAGES:
        first, *others = names.split("|")
        versions |= {first: "1.0", **dict.fromkeys(others)}
    return versions | changes


def test_packages() -> None:
    assert [finding.verdict for finding in package_findings(_versions())] == [OK]
    missing = next(package_findings(_versions(numpy=None)))
    assert (missing.verdict, missing.text, missing.remedy) == (PROBLEM, "numpy is missing", "pip install numpy")
    twice = next(package_findings(_versions() | {"opencv-python": "5.0"}))
    assert twice.verdict is WARNING
    assert "opencv-python-headless 1.0, opencv-python 5.0 overwrite" in twice.text
    instead = _versions() | {"opencv-python-headless": None, "opencv-python": "5.0"}
    assert [finding.verdict for finding in package_findings(instead)] == [OK]


def test_runtimes() -> None:
    def verdict(cpu: str | None, gpu: str | None) -> Verdict:
        (finding,) = runtime_findings({"onnxruntime": cpu, "onnxruntime-gpu": gpu})
        return finding.verdict

    assert (verdict("1", None), verdict(None, "1")) == (OK, OK)
    assert (verdict(None, None), verdict("1", "1")) == (PROBLEM, WARNING)


def test_a_provider_that_is_asked_for_must_be_there() -> None:
    def verdicts(config: ServerConfig) -> dict[str, Finding]:
        return {finding.subject.split()[1]: finding for finding in provider_findings(config)}

    found = verdicts(ServerConfig())
    assert {finding.verdict for finding in found.values()} == {OK}
    absent = [name for name, finding in found.items() if finding.text.startswith("not here, ")]
    for name in absent:
        asked = ServerConfig(models={"a": ModelConfig(path="a", provider=name)})  # type: ignore[arg-type]
        assert verdicts(asked)[name].verdict is PROBLEM
        assert verdicts(asked)["cpu"].verdict is OK


def test_without_onnx_runtime_the_providers_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("parallel_infer.inference.providers", "parallel_infer.inference.ort"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (finding,) = provider_findings(ServerConfig())
    assert finding.verdict is PROBLEM
    assert "parallel-infer[cpu]" in finding.text


def test_versions_of_python_and_the_kernel() -> None:
    assert [python_finding(version).verdict for version in ((3, 11, 0), (3, 14, 9), (3, 15, 0))] == [OK, OK, WARNING]
    assert [kernel_finding(release).verdict for release in ("5.14.0-x", "6.1.2", "5.4.0")] == [OK, OK, WARNING]


def test_nvidia(tmp_path: Path) -> None:
    (none,) = nvidia_findings(tmp_path / "none")
    assert none.text == "none"
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.1\nGCC version: 12\n")
    first, *_ = nvidia_findings(tmp_path / "version")
    assert first.text == "NVIDIA UNIX x86_64 Kernel Module  570.1"


def test_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    info = tmp_path / "cpuinfo"
    info.write_text("model name\t: Some CPU\nflags\t\t: fpu avx2 amx_bf16 avx512f\n\nprocessor\t: 1\n")
    assert processor_finding(info) == Finding.ok("processor", "Some CPU; avx2 avx512f amx_bf16")
    info.write_text("model name\t: Old CPU\nflags\t\t: fpu\n")
    assert processor_finding(info).verdict is WARNING
    assert processor_finding(tmp_path / "none").verdict is OK


def test_limits() -> None:
    assert [cores_finding(8, usable).verdict for usable in (1, 2, 8)] == [WARNING, OK, OK]
    assert cores_finding(8, 2).text == "2 usable of 8"
    assert memory_finding(8 << 30, None) == Finding.ok("memory", "8.0 GB")
    assert memory_finding(8 << 30, 1 << 30).verdict is WARNING
    assert memory_finding(8 << 30, 4 << 30).text == "4.0 GB of 8.0 GB"
    assert files_finding(1536, 1024).verdict is OK
    assert files_finding(resource.RLIM_INFINITY, 1024).text == "unlimited"
    assert "ulimit -n 1536" in files_finding(1024, 1024).remedy


class _Plan:
    rings = (RingPlan("rows", 1, 50 * MEBI, 50 * MEBI),)
    total = 50 * MEBI


@pytest.mark.parametrize(
    ("free", "limit", "verdict", "remedy"),
    [
        (400, None, OK, ""),
        (100, None, WARNING, "lower lent_memory_mb"),
        (40, None, PROBLEM, "--shm-size="),
        (400, 49, PROBLEM, "docker run --memory"),
        (400, 1000, OK, ""),
    ],
)
def test_shared_memory(free: int, limit: int | None, verdict: Verdict, remedy: str) -> None:
    memory = SharedMemory(512 * MEBI, free * MEBI)
    (finding,) = memory_findings(ServerConfig(), _Plan(), memory, limit and limit * MEBI)
    assert finding.verdict is verdict
    assert remedy in finding.remedy
    assert "50.0 MB needed" in finding.text


def test_addresses() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        config = ServerConfig(bind=[address, "ipc:///a", "tcp://127.0.0.1:*", "tcp://203.0.113.9:5555"], insecure=True)
        found = list(address_findings(config))
    assert [finding.verdict for finding in found] == [WARNING, OK, OK, PROBLEM]
    refused = list(address_findings(ServerConfig(bind=["tcp://*:0"])))
    assert [finding.verdict for finding in refused] == [PROBLEM, OK]


@pytest.fixture
def dead_run() -> Iterator[str]:
    """What a server leaves that was killed: a mark nobody holds and a segment."""
    run = "d0c70123"
    paths = [FOLDER / f"{PREFIX}{run}", FOLDER / f"{PREFIX}{run}-rows"]
    for path in paths:
        path.write_bytes(b"x" * 8192)
    yield run
    for path in paths:
        path.unlink(missing_ok=True)


def test_what_a_dead_run_left_is_told(dead_run: str) -> None:
    (finding,) = [finding for finding in left_over_findings() if dead_run in finding.text]
    assert finding.verdict is WARNING
    assert "16.0 KB" in finding.text


def test_a_processor_with_bfloat16_that_nothing_uses_is_worth_a_warning(monkeypatch) -> None:
    machine = Machine(flags=frozenset({"avx512_bf16"}), providers=frozenset({CPU}), gpus=0, openvino=OpenVino.ABSENT)
    monkeypatch.setattr("parallel_infer.inference.providers.survey", lambda config: machine)
    found = {finding.subject: finding for finding in provider_findings(ServerConfig())}
    assert (found["provider auto"].verdict, found["provider auto"].remedy) == (WARNING, "pip install openvino")
    monkeypatch.setattr(
        "parallel_infer.inference.providers.survey", lambda config: replace(machine, openvino=OpenVino.RUNTIME)
    )
    found = {finding.subject: finding for finding in provider_findings(ServerConfig())}
    assert (found["provider auto"].verdict, found["provider auto"].text) == (OK, "openvino bf16 (cpu)")
