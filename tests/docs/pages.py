"""The documents as tests see them: pages, their sections, tables, code blocks and links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def documents() -> list[str]:
    """Every page that is written by hand, by its path from the root of the project."""
    pages = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md"))]
    return ["README.md", "benchmarks/peers/README.md", *pages]


@dataclass(frozen=True)
class Page:
    """One Markdown file, or one section of it."""

    path: Path
    text: str

    @classmethod
    def read(cls, name: str) -> Page:
        """A document by its path from the root of the project."""
        return cls(ROOT / name, (ROOT / name).read_text("utf-8"))

    def section(self, heading: str) -> Page:
        """What stands under a heading, its subsections included."""
        found = re.search(rf"^(#+) {re.escape(heading)}$\n", self.text, re.MULTILINE)
        assert found, f"{self.path.name} has no heading {heading!r}"
        rest = self.text[found.end() :]
        end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
        return Page(self.path, rest[: end.start()] if end else rest)

    def rows(self, *head: str) -> list[list[str]]:
        """The rows of the one table here with this head, as lists of cells."""
        tables = [table for table in self._tables() if table[0] == list(head)]
        assert len(tables) == 1, f"{self.path.name} has {len(tables)} tables of {head}"
        return tables[0][2:]

    def column(self, *head: str) -> list[str]:
        """The first cells of the table with this head, without backticks."""
        return [row[0].strip("`") for row in self.rows(*head)]

    def marked(self, name: str) -> str:
        """The code block after the comment `<!-- name -->`."""
        found = re.search(rf"<!-- {re.escape(name)} -->\n```\w*\n(.*?)\n```", self.text, re.DOTALL)
        assert found, f"{self.path.name} has no block {name!r}"
        return found[1]

    def blocks(self, language: str) -> list[str]:
        """All code blocks of a language."""
        found = re.findall(r"^```(\w*)\n(.*?)^```", self.text, re.DOTALL | re.MULTILINE)  # in pairs, from the top
        return [block for named, block in found if named == language]

    def links(self) -> list[str]:
        """Targets of all links and pictures, those in code left out."""
        prose = re.sub(r"```.*?```|`[^`\n]*`", "", self.text, flags=re.DOTALL)
        return re.findall(r"\]\(([^)\s]+)\)", prose)

    def anchors(self) -> set[str]:
        """What a link may name after `#`: headings, as code hosts turn them into names."""
        prose = re.sub(r"```.*?```", "", self.text, flags=re.DOTALL)
        headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
        return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}

    def _tables(self) -> list[list[list[str]]]:
        tables = re.findall(r"(?:^\|.*\|$\n?)+", self.text, re.MULTILINE)
        return [[_cells(line) for line in table.splitlines()] for table in tables]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
