"""What each package may import, as docs/architecture.md says: no cycle, nothing upwards, `stages` by name only."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
BASE = "parallel_infer"


def table() -> dict[str, set[str]]:
    """The packages of the page, each with those it may import; `*` for all."""
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8").partition("## Packages")[2]
    found = {}
    for name, allowed in re.findall(r"^\| `(\w+)` \| .+ \| (.+) \|$", page, re.MULTILINE):
        found[name] = {"*"} if allowed == "everything" else {*re.findall(r"`(\w+)`", allowed), BASE}
    return found


def package_of(module: str) -> str:
    """`parallel_infer.gateway.core` is of gateway, `parallel_infer.errors` of the root, all of stages of stages."""
    first, *rest = module.split(".")
    return rest[0] if first == BASE and rest and (ROOT / BASE / rest[0]).is_dir() else first


def imports() -> Iterator[tuple[str, str, str]]:
    """(file, its package, imported package) of every import of ours, also inside functions."""
    for path in sorted([*(ROOT / BASE).rglob("*.py"), *(ROOT / "stages").rglob("*.py")]):
        file = path.relative_to(ROOT).as_posix()
        if file in (f"{BASE}/__init__.py", f"{BASE}/__main__.py", f"{BASE}/cores.py"):
            continue  # what users import and start: these gather from everywhere
        own = package_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            for module in imported(node):
                if module.split(".")[0] in (BASE, "stages"):
                    yield file, own, package_of(module)


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [f"{node.module}.{alias.name}" if node.module == BASE else node.module for alias in node.names]
    return []


def test_every_package_is_in_the_table():
    packages = {path.parent.name for path in (ROOT / BASE).glob("*/__init__.py")}
    assert set(table()) == {BASE, "stages", *packages}


def test_packages_import_what_the_table_says():
    allowed = table()
    wrong = sorted(
        f"{file} imports {other}"
        for file, own, other in imports()
        if own != other and "*" not in allowed[own] and other not in allowed[own]
    )
    assert wrong == []


def test_the_table_has_nothing_that_is_not_needed():
    used: dict[str, set[str]] = {}
    for _, own, other in imports():
        used.setdefault(own, set()).add(other)
    spare = {
        name: sorted(allowed - used.get(name, set()) - {BASE, "*"})
        for name, allowed in table().items()
        if allowed - used.get(name, set()) - {BASE, "*"}
    }
    assert spare == {}


def test_packages_form_no_cycle():
    graph: dict[str, set[str]] = {}
    for _, own, other in imports():
        if own != other:
            graph.setdefault(own, set()).add(other)
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError


def test_nothing_imports_stages():
    assert [file for file, own, other in imports() if other == "stages" and own != "stages"] == []
