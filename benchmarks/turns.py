"""Benchmarks of another checkout and of this one, in turns, and the medians of all figures that both print.

    python benchmarks/turns.py OTHER_CHECKOUT [--rounds 3] -- benchmarks/overhead.py --seconds 1 --rounds 1
    python benchmarks/turns.py OTHER_CHECKOUT -- benchmarks/waits.py -- benchmarks/hops.py --jobs 1000 -- --instances 2

What stands behind `--` is a script and its options; it runs in either checkout, with that checkout's script, package
and environment. A further `--` before a word that ends in .py begins another script; any other is an option of the
script. Every other round begins with this checkout. Lines are matched by their text without its numbers: each line that
both print is printed once, and below it, for each number, the medians of the other checkout and of this one, and their
ratio.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
_NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?(?![\w.]*\w)")

Figures = dict[str, list[float]]  # numbers of a line, by its text without them


def figures(output: str) -> Figures:
    """The numbers of each line that has any; a text that comes again is numbered."""
    found: Figures = {}
    seen: Counter[str] = Counter()
    for line in output.splitlines():
        numbers = [float(text.replace(",", "")) for text in _NUMBER.findall(line)]
        if numbers:
            text = " ".join(_NUMBER.sub("#", line).split())
            seen[text] += 1
            found[text if seen[text] == 1 else f"{text} [{seen[text]}]"] = numbers
    return found


def compared(other: Sequence[Figures], this: Sequence[Figures]) -> list[str]:
    """Lines for people. Raises ValueError where no line is in every output."""
    common = [text for text in this[0] if all(text in found for found in (*other, *this))]
    if not common:
        raise ValueError("no line with numbers is in every output")
    lines = []
    for text in common:
        pairs = zip(_medians(other, text), _medians(this, text), strict=True)
        lines += [text, "    " + "   ".join(_pair(before, now) for before, now in pairs)]
    return lines


def _medians(runs: Sequence[Mapping[str, list[float]]], text: str) -> list[float]:
    return [statistics.median(numbers) for numbers in zip(*(found[text] for found in runs), strict=True)]


def _pair(before: float, now: float) -> str:
    return f"{before:,.4g} -> {now:,.4g}" + (f" ({now / before:.2f})" if before else "")


def output_of(checkout: Path, words: Sequence[str]) -> str:
    """What the script prints there; the program ends where it fails."""
    command = [str(checkout / ".venv" / "bin" / "python"), *words]
    done = subprocess.run(command, cwd=checkout, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n{' '.join(words)} ended with exit code {done.returncode} in {checkout}")
    return done.stdout


def scripts_of(words: Sequence[str]) -> list[list[str]]:
    """Each script with its options."""
    found: list[list[str]] = []
    for place, word in enumerate(words):
        following = words[place + 1] if place + 1 < len(words) else ""
        if word == "--" and (not found or following.endswith(".py")):
            found.append([])
        elif found:
            found[-1].append(word)
    return found


def main() -> None:
    """Run in turns, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s OTHER_CHECKOUT [--rounds ROUNDS] -- SCRIPT [OPTION]... [-- SCRIPT [OPTION]...]...",
    )
    parser.add_argument("other", type=Path, metavar="OTHER_CHECKOUT", help="with an environment: scripts/build.sh")
    parser.add_argument("--rounds", type=int, default=3)
    words = sys.argv[1:]
    first = words.index("--") if "--" in words else len(words)
    arguments = parser.parse_args(words[:first])
    scripts = scripts_of(words[first:])
    if not all(scripts) or not scripts:
        parser.error("there is no script behind --")
    other = arguments.other.resolve()
    for checkout in (other, HERE):
        for needed in (".venv/bin/python", *(script[0] for script in scripts)):
            if not (checkout / needed).is_file():
                parser.error(f"there is no {checkout / needed}")
    found: dict[Path, list[list[Figures]]] = {other: [], HERE: []}
    for number in range(arguments.rounds):
        for checkout in (other, HERE) if number % 2 == 0 else (HERE, other):
            print(f"round {number + 1} of {arguments.rounds}: {checkout}", file=sys.stderr, flush=True)
            found[checkout].append([figures(output_of(checkout, script)) for script in scripts])
    for script, before, now in zip(
        scripts, zip(*found[other], strict=True), zip(*found[HERE], strict=True), strict=True
    ):
        print(f"{other} -> {HERE}, medians of {arguments.rounds} rounds: {' '.join(script)}")
        try:
            print(*compared(before, now), sep="\n")
        except ValueError as error:
            raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
