"""The commands that the documents tell a reader to run, and what can be said of one without running it."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click

from parallel_infer.cli import main
from tests.docs.pages import ROOT, Page

SHELL = ("", "sh", "bash", "console")  # languages of blocks whose lines are commands
OURS = re.compile(
    r"(?:\S*/)?parallel-infer |(?:\./)?scripts/\w+\.sh\b|benchmarks/\S+\.sh\b|(?:\.venv/bin/)?python (?:-m )?"
    r"(?:benchmarks|examples|scripts|tests)\b"
)
RUN = "scripts/run.sh"


def in_documents(*names: str) -> list[tuple[str, list[str]]]:
    """(page, words) of every command of ours in these documents."""
    return [(name, words) for name in names for words in commands(Page.read(name))]


def commands(page: Page) -> Iterator[list[str]]:
    """Every command of ours in a page, as words; what stands behind `#`, or far behind it, is an explanation."""
    for text in _texts(page):
        for part in re.split(r" \| (?=parallel-infer )", text.strip().removeprefix("$ ")):
            if OURS.match(part + " "):
                words = shlex.split(re.split(r"\s{3,}", part)[0], comments=True)
                yield [word for word in words if word not in ("...", "&")]


def _texts(page: Page) -> Iterator[str]:
    for language in SHELL:
        for block in page.blocks(language):
            yield from block.replace("\\\n", "").splitlines()
    prose = re.sub(r"^```.*?^```", "", page.text, flags=re.DOTALL | re.MULTILINE)
    yield from re.findall(r"`([^`\n]+)`", prose)


def problem(words: list[str]) -> str:
    """Why these words cannot be a command of this project; empty where they can."""
    program, *rest = words
    if program.endswith("python"):
        return _problem_of_script(rest)
    if program.endswith(".sh"):
        if not (ROOT / program).is_file():
            return f"there is no {program}"
        return _problem_of_command(_served(rest)) if program.endswith(RUN) else ""
    return _problem_of_command(rest)


def _served(words: list[str]) -> list[str]:
    """scripts/run.sh without a command is `serve`."""
    return ["serve", *words] if not words or words[0].startswith("-") else words


def _problem_of_command(words: list[str]) -> str:
    command: click.Command = main
    context = click.Context(main, info_name="parallel-infer")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, *words = words
        found = command.get_command(context, name)
        if name == "COMMAND":
            return ""
        if found is None:
            return f"there is no command {name}"
        command, context = found, click.Context(found, info_name=name, parent=context)
    words = [word.strip("[]") for word in words]
    before = words[: words.index("--")] if "--" in words else words
    try:
        command.make_parser(context).parse_args([word for word in before if word != "--help"])
    except click.UsageError as error:
        return error.format_message()
    if "--" in words and command.name == "bench":
        return _problem_of_command(["serve", *words[words.index("--") + 1 :]])
    return ""


def _problem_of_script(words: list[str]) -> str:
    if words[0] == "-m":
        words = [words[1].replace(".", "/") + ".py", *words[2:]]
    script, *rest = words
    if not (ROOT / script).is_file():
        return f"there is no {script}"
    place = rest.index("--") if "--" in rest else len(rest)
    if "".join(rest[place + 1 : place + 2]).endswith(".py"):  # a script that runs another
        if why := _problem_of_script(rest[place + 1 :]):
            return why
        rest = rest[:place]
    named = {word.partition("=")[0] for word in rest if re.match(r"--[\w-]+(=|$)", word)}
    unknown = named - options_of(ROOT / script) - {"--help"}
    return f"{script} has no option {', '.join(sorted(unknown))}" if unknown else ""


@cache
def options_of(script: Path) -> frozenset[str]:
    """The long options that a script declares, with argparse or click, itself or in a module of benchmarks it imports.

    A script that takes over a command of parallel-infer has that command's options.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(script.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            found |= {option for text in texts for option in text.split("/") if re.fullmatch(r"--[a-z][a-z-]*", option)}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= _options_of_module(node.module, [alias.name for alias in node.names])
    return frozenset(found)


def _options_of_module(module: str, names: list[str]) -> set[str]:
    if module.startswith("parallel_infer.cli."):
        command = main.get_command(click.Context(main), module.rpartition(".")[2])
        return {option for one in command.params for option in one.opts} if command else set()
    if not module.startswith("benchmarks"):
        return set()
    paths = [ROOT / (module.replace(".", "/") + ".py"), *(ROOT / module.replace(".", "/") / f"{n}.py" for n in names)]
    return {option for path in paths if path.is_file() for option in options_of(path)}
