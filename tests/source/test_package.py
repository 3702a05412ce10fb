"""What is installed: the two packages, the command, the zoo with its licences, and nothing undeclared."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from typing import Any

import cv2
import onnx
import pytest

from tests.source.source_rules import Source, top

ROOT = Path(__file__).parents[2]
PACKAGES = ("parallel_infer", "stages")
MODELS = ["classifier.onnx", "detector.onnx", "pose.onnx", "segmenter.onnx"]
PICTURES = ["astronaut.png", "chelsea.png", "coffee.png"]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def normal(name: str) -> str:
    """A distribution's name as package indexes compare it, without version, extras and marker."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", name)[0]).lower()


def test_installed_version_is_that_of_the_project(project: dict[str, Any]) -> None:
    assert importlib.metadata.version("parallel-infer") == project["version"]
    assert project["version"] in (ROOT / "CHANGELOG.md").read_text()


def test_command_is_installed() -> None:
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="parallel-infer")

    assert callable(command.load())


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_marked_as_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


def test_every_import_is_declared(project: dict[str, Any]) -> None:
    declared = {normal(name) for name in project["dependencies"]}
    declared |= {normal(name) for names in project["optional-dependencies"].values() for name in names}
    sources = [
        Source.parse(path.relative_to(ROOT).as_posix(), path.read_text())
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    ]
    imported = {top(name) for source in sources for _, name in source.imports()}
    foreign = imported - {*sys.stdlib_module_names, *PACKAGES}
    origins = importlib.metadata.packages_distributions()

    def is_declared(name: str) -> bool:
        if name in origins:
            return bool(declared & {normal(origin) for origin in origins[name]})
        return any(one == name or one.startswith(f"{name}-") for one in declared)  # of an extra that is not installed

    undeclared = {name for name in foreign if not is_declared(name)}

    assert len(foreign) > 3
    assert not undeclared


def test_zoo_is_complete(zoo: Path, pictures: Path) -> None:
    assert sorted(path.name for path in zoo.glob("*.onnx")) == MODELS
    assert sorted(path.name for path in pictures.glob("*.png")) == PICTURES


@pytest.mark.parametrize("model", MODELS)
def test_model_says_what_it_is(zoo: Path, model: str) -> None:
    loaded = onnx.load(zoo / model)
    metadata = {entry.key: entry.value for entry in loaded.metadata_props}

    onnx.checker.check_model(loaded)
    assert {"task", "names", "imgsz", "resize"} <= metadata.keys()
    assert metadata["license"] == "Apache-2.0"


def test_notice_names_every_file_and_every_licence_text(zoo: Path) -> None:
    notice, readme = (zoo / "NOTICE").read_text(), (zoo / "README.md").read_text()
    licences = {path.name: path.read_text() for path in (zoo / "LICENSES").iterdir()}

    assert all(model in notice and model in readme for model in MODELS)
    assert all(f"pictures/{picture}" in notice for picture in PICTURES)
    assert "Apache License" in licences["Apache-2.0.txt"]
    holders = [line for text in licences.values() for line in text.splitlines() if line.startswith("Copyright (c) 20")]
    assert len(holders) == 2
    assert all(holder in notice for holder in holders)


def test_pictures_are_those_of_the_expected_answers(pictures: Path, expected: dict[str, Any]) -> None:
    assert sorted(expected) == PICTURES
    for name, answers in expected.items():
        height, width = cv2.imread(str(pictures / name)).shape[:2]
        assert answers["size"] == [width, height]


SCRIPTS = ["scripts/build.sh", "scripts/run.sh", "scripts/test.sh", "scripts/docs.sh", ".ci/run"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_can_be_run(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / script], check=True)


@pytest.mark.parametrize("arguments", [["--gpux"], ["--gpu", "--cpu"]])
def test_build_refuses_bad_usage(arguments: list[str]) -> None:
    result = subprocess.run([ROOT / "scripts/build.sh", *arguments], capture_output=True, text=True, check=False)

    assert result.returncode == 2
    assert arguments[0] in result.stderr


@pytest.mark.slow  # builds a wheel and an environment; needs a package index
def test_wheel_holds_everything(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT], check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True)

    (site,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    tracked = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    missing = [name for name in tracked if (ROOT / name).exists() and not (site / name).is_file()]
    assert tracked
    assert not missing
    assert json.loads((site / "parallel_infer/zoo/pictures/expected.json").read_text())
    assert (tmp_path / "venv/bin/parallel-infer").is_file()
    assert not (site / "tests").exists()


def test_the_sdist_holds_what_its_tests_read_and_import() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["sdist"]
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    texts = [path.read_text() for path in (ROOT / "tests").rglob("*.py")]
    named = {name for text in texts for name in re.findall(r'(?:^from |^import |/ "|")(\w+)\b', text, re.MULTILINE)}
    assert {"benchmarks", "docs", "examples"} <= (needed := named & folders - {"build", "dist"})
    assert needed - set(build["include"]) == set()


@pytest.mark.slow  # needs a package index
@pytest.mark.timeout(900)
def test_tests_run_from_the_sdist(tmp_path: Path) -> None:
    """Some that read what lies beside the packages, and some that start processes; with the tools installed here."""
    tools = tmp_path / "tools"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--target", tools, "hatchling"], check=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", tmp_path],
        cwd=ROOT,
        env={**environment, "PYTHONPATH": str(tools)},
        check=True,
    )
    (archive,) = tmp_path.glob("*.tar.gz")
    shutil.unpack_archive(archive, tmp_path / "unpacked", filter="data")
    (folder,) = (tmp_path / "unpacked").iterdir()
    where = subprocess.run(
        [sys.executable, "-c", "import parallel_infer; print(parallel_infer.__file__)"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(folder)
    few = ("tests/source", "tests/answers", "tests/supervisor/test_child_processes.py")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *few],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
