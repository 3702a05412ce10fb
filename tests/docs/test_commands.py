"""Every command that a document tells the reader to run exists, with its options; those that end soon are run."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib

import pytest

from tests.docs.commands import commands, in_documents, problem
from tests.docs.pages import ROOT, Page, documents

OWN = {"parallel_infer", "stages", "benchmarks", "tests"}
FOUND = in_documents(*documents())


@pytest.mark.parametrize("name", documents())
def test_commands_and_their_options_exist(name: str) -> None:
    wrong = [f"{' '.join(words)}: {why}" for page, words in FOUND if page == name and (why := problem(words))]
    assert wrong == []


def test_scripts_of_the_checkout_are_run_with_its_python() -> None:
    """On a machine where only scripts/run.sh was run, no other Python has what they need."""
    assert {words[0] for _, words in FOUND if words[0].endswith("python")} == {".venv/bin/python"}


def test_commands_are_found_in_code() -> None:
    page = Page(
        ROOT,
        "```\n$ ./scripts/run.sh --bind x  # y\nffmpeg -i x | parallel-infer stream -\nparallel-infer bench    x\n```\n"
        "```text\nparallel-infer nonsense\n```\nsee `parallel-infer models list`, not `serve`\n",
    )

    assert list(commands(page)) == [
        ["./scripts/run.sh", "--bind", "x"],
        ["parallel-infer", "stream", "-"],
        ["parallel-infer", "bench"],
        ["parallel-infer", "models", "list"],
    ]


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("parallel-infer sing", "no command sing"),
        ("parallel-infer models sing", "no command sing"),
        ("parallel-infer serve --max-bath-size 3", "--max-bath-size"),
        ("parallel-infer serve --model", "requires an argument"),
        ("parallel-infer bench -- --sing", "--sing"),
        ("scripts/run.sh --sing", "--sing"),
        ("scripts/sing.sh", "there is no scripts/sing.sh"),
        (".venv/bin/python benchmarks/sing.py", "there is no benchmarks/sing.py"),
        (".venv/bin/python benchmarks/overhead.py --sing", "no option --sing"),
        (".venv/bin/python benchmarks/turns.py ../other -- benchmarks/sing.py", "there is no benchmarks/sing.py"),
        (
            ".venv/bin/python benchmarks/turns.py ../other -- benchmarks/waits.py --sing",
            "waits.py has no option --sing",
        ),
    ],
)
def test_a_command_that_does_not_exist_is_found_out(command: str, why: str) -> None:
    assert why in problem(command.split())


def test_what_pip_is_told_to_install_exists() -> None:
    """Extras are declared, and the wheel's name has the version of the project."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    texts = [Page.read(name).text for name in documents()]
    extras = {
        extra
        for text in texts
        for names in re.findall(r"(?:parallel-infer|\.whl|'\.)\[([a-z,]+)\]", text)
        for extra in names.split(",")
    }
    wheels = {version for text in texts for version in re.findall(r"parallel_infer-([\d.]+)-py3", text)}

    assert {"cpu", "http"} <= extras <= set(project["optional-dependencies"])
    assert wheels == {project["version"]}


def test_scripts_need_only_what_the_server_needs() -> None:
    """What a benchmark imports at its top comes with the server and its doors: no tool has to be installed for it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = [*project["dependencies"], *extras["cpu"], *extras["http"], *extras["grpc"]]
    here = {re.match(r"[\w.-]+", name)[0].lower().replace("_", "-") for name in declared}
    origins = importlib.metadata.packages_distributions()
    missing = set()
    for script in (ROOT / "benchmarks").glob("*.py"):
        for node in ast.parse(script.read_text("utf-8")).body:
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for module in {name.partition(".")[0] for name in modules} - {*sys.stdlib_module_names, *OWN}:
                if not here & {name.lower().replace("_", "-") for name in origins.get(module, [module])}:
                    missing.add(f"{script.name}: {module}")
    assert missing == set()
