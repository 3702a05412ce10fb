"""The list of files in docs/architecture.md, made from the first sentence of each file.

`python -m tests.docs.file_index` writes it anew.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("parallel_infer", "stages")
_START, _END = "<!-- files -->", "<!-- end of files -->"
_NO_DOCSTRING = {"__main__.py": "`python -m parallel_infer`: the command line"}


def modules() -> set[str]:
    """Every module of the packages, by its path from the root."""
    return {path.relative_to(ROOT).as_posix() for name in PACKAGES for path in (ROOT / name).rglob("*.py")}


def listed() -> set[str]:
    """Every module that the document lists."""
    found, folder = set(), ""
    for line in _between(PAGE.read_text("utf-8")).splitlines():
        if line.startswith("### "):
            folder = line.removeprefix("### ").strip("`")
        elif match := re.match(r"\| `([\w.]+\.py)` \| .+ \|$", line):
            found.add(folder + match[1])
    return found


def made() -> str:
    """The list as it should be."""
    lines: list[str] = []
    folder = None
    for module in sorted(modules(), key=lambda name: (*name.split("/")[:-1], "", name.split("/")[-1])):
        path = Path(module)
        if path.parent != folder:
            folder = path.parent
            lines += ["", f"### `{folder.as_posix()}/`", "", "| File | What it is |", "|---|---|"]
        lines.append(f"| `{path.name}` | {_sentence(ROOT / path)} |")
    return "\n".join(lines) + "\n"


def _sentence(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or _NO_DOCSTRING.get(path.name, "")
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    return paragraph.split(". ")[0].rstrip(".").replace("|", "\\|")


def _between(text: str) -> str:
    return text.partition(_START)[2].partition(_END)[0]


def main() -> None:
    """Write the list into the document."""
    text = PAGE.read_text("utf-8")
    PAGE.write_text(text.replace(_START + _between(text) + _END, f"{_START}\n{made()}\n{_END}"), "utf-8")


if __name__ == "__main__":
    main()
