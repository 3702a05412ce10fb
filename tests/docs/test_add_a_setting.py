"""The steps of docs/architecture.md for a setting of one's own, walked in a copy of the packages."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.docs.copied import ROOT, blocks, copy_packages, replace, run

LAST = "    max_clients: Annotated["


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project whose ServerConfig has the field of the page."""
    folder = tmp_path_factory.mktemp("setting")
    copy_packages(folder)
    (field,) = blocks("Add a setting in one field", "architecture.md")
    replace(folder / "parallel_infer" / "config" / "engine_schema.py", (LAST, field + LAST))
    (folder / "m.onnx").touch()  # --print-config looks whether models are there, not into them
    return folder


def printed(folder: Path, *words: str, **variables: str) -> str:
    """The line of the setting in --print-config."""
    ran = run(folder, "-m", "parallel_infer", "serve", "--print-config", "--model", "m=m.onnx", *words, **variables)
    assert ran.returncode == 0, ran.stderr
    (line,) = (line for line in ran.stdout.splitlines() if line.startswith("patience_ms"))
    return line


def test_it_is_read_from_every_place_and_documented_by_help(copy: Path) -> None:
    (copy / "server.toml").write_text("patience_ms = 3.0\n")

    assert printed(copy).startswith("patience_ms = 250.0")
    assert printed(copy, "--config", "server.toml").startswith("patience_ms = 3.0")
    assert printed(copy, "--config", "server.toml", PARALLEL_INFER_PATIENCE_MS="4").startswith("patience_ms = 4.0")
    assert printed(copy, "--patience-ms", "5", PARALLEL_INFER_PATIENCE_MS="4").startswith("patience_ms = 5.0")
    help_text = " ".join(run(copy, "-m", "parallel_infer", "serve", "--help").stdout.split())
    assert "Longest time in milliseconds that somebody waits for something." in help_text
    assert "[default: 250.0]" in help_text


def test_its_bounds_are_those_of_every_place(copy: Path) -> None:
    (copy / "wrong.toml").write_text("patience_ms = -1.0\n")
    words = ("-m", "parallel_infer", "serve", "--print-config")

    for ran in (
        run(copy, *words, "--config", "wrong.toml"),
        run(copy, *words, "--patience-ms", "-1"),
        run(copy, *words, PARALLEL_INFER_PATIENCE_MS="-1"),
    ):
        assert ran.returncode == 2
        assert "3600000" in ran.stderr.replace("_", "")


def test_the_manual_is_written_anew(copy: Path) -> None:
    for file in ("docs/configuration.md", "scripts/docs_pages.py"):
        (copy / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, copy / file)

    ran = run(copy, "scripts/docs_pages.py")

    assert ran.returncode == 0, ran.stderr
    rows = (copy / "docs" / "configuration.md").read_text().splitlines()
    (row,) = (row for row in rows if "`patience_ms`" in row)
    assert "`--patience-ms`" in row
    assert "`250.0`" in row
    assert "Longest time in milliseconds that somebody waits for something." in row
