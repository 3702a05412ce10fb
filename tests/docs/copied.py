"""A copy of the packages to add something to, and a server run from it: what the walked documents need."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def blocks(heading: str, page: str = "models.md") -> list[str]:
    """The Python that a section of a page of docs/ tells the reader to write."""
    section = (ROOT / "docs" / page).read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def copy_packages(folder: Path) -> None:
    """Copy both packages into `folder`, without the shipped models."""
    for package in ("parallel_infer", "stages"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("*.onnx", "__pycache__"))


def replace(file: Path, *changes: tuple[str, str]) -> None:
    """Change texts that stand in the file once."""
    text = file.read_text()
    for before, after in changes:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    file.write_text(text)


def run(folder: Path, *words: str, timeout: float = 100, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the folder with its packages, and with those of the project that it has not."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), **variables},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def run_client(folder: Path, client: str, config: str) -> list[str]:
    """Run the client's code with the packages of `folder` and that configuration; the words it printed."""
    (folder / "server.toml").write_text(config)
    (folder / "client.py").write_text(client)
    ran = run(folder, "client.py", "server.toml")
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()
