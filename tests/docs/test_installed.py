"""What a reader gets who installs the wheel with pip, or runs the first command of README: no tools are there.

Slow: one environment is made, with the packages of `pip install parallel-infer[cpu,http,grpc]`, and used by all.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
import venv
from pathlib import Path

import pytest

from tests.docs.commands import in_documents
from tests.docs.pages import ROOT, documents

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

EXTRAS = "cpu,http,grpc"  # what scripts/build.sh installs where there is no GPU
SHORT = {
    "benchmarks/overhead.py": ["--seconds", "0.3", "--rounds", "1"],
    "benchmarks/waits.py": ["--count", "5"],
    "benchmarks/hops.py": ["--jobs", "100", "--in-flight", "4"],
    "benchmarks/footprint.py": ["--idle", "1"],
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment that has the wheel of this checkout and no tools."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT], check=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv/bin/python"
    installed = subprocess.run(
        [python, *pip[1:], "install", "--find-links", folder, f"{wheel}[{EXTRAS}]"],
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode and "No matching distribution" in installed.stderr:
        pytest.skip("no package index to install from")
    assert installed.returncode == 0, installed.stderr
    return python.parent


def run(program: Path, *words: str, cwd: Path, timeout: float = 300) -> str:
    """What a program prints; it may import only what its own environment has."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV")
    ran = subprocess.run(
        [program, *words],
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if name not in hidden},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert ran.returncode == 0, f"{' '.join(words)}\n{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}"
    return ran.stdout


def test_the_demo_runs(environment: Path, tmp_path: Path) -> None:
    shown = run(environment / "parallel-infer", "demo", "--seconds", "0.3", cwd=tmp_path)

    assert "person 0.7" in shown
    assert len(list((tmp_path / "demo-output").glob("*.jpg"))) == 12


def test_it_serves_and_answers_over_every_way_in(environment: Path, tmp_path: Path, pictures: Path) -> None:
    address = f"ipc://{tmp_path}/door"
    options = ["--model", "detector=zoo:detector", "--bind", address, "--http", "127.0.0.1:0", "--json"]
    server = subprocess.Popen(
        [environment / "parallel-infer", "serve", *options], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        ready = server.stdout.readline()
        assert '"ready": true' in ready
        (http,) = (word.strip('",[] ') for word in ready.split() if "http://" in word)
        picture = pictures / "astronaut.png"
        program = environment / "parallel-infer"
        assert "person" in run(program, "infer", "--server", address, "detector", str(picture), cwd=tmp_path)
        with urllib.request.urlopen(f"{http}/infer/detector", picture.read_bytes(), timeout=60) as reply:
            assert b'"person"' in reply.read()
        with urllib.request.urlopen(f"{http}/", timeout=60) as reply:
            page = reply.read().decode()
        scripts = re.findall(r'(?:src|href)="(?!https?:)/?([^"#]+\.(?:js|css))"', page)
        assert scripts
        for script in scripts:
            with urllib.request.urlopen(f"{http}/{script}", timeout=60) as reply:
                assert reply.status == 200
    finally:
        server.terminate()
        server.communicate(timeout=60)
    assert server.returncode == 0


def scripts() -> list[str]:
    words = [words for _, words in in_documents(*documents()) if words[0].endswith("python")]
    return sorted({word for found in words for word in found if word.endswith(".py")} - {"scripts/docs_pages.py"})


@pytest.mark.parametrize("script", scripts())
def test_scripts_of_the_documents_need_no_tools(script: str, environment: Path) -> None:
    assert run(environment / "python", script, *SHORT.get(script, ["--help"]), cwd=ROOT)


def test_the_environment_has_no_tools(environment: Path) -> None:
    code = (
        "import importlib.util as u; print([n for n in ('pytest', 'psutil', 'mypy', 'matplotlib') if u.find_spec(n)])"
    )
    assert run(environment / "python", "-c", code, cwd=ROOT).strip() == "[]"
