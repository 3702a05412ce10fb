"""How `stream` shows what happens: JSON lines, plain lines, or a row per source on a terminal."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from typing import Any, Protocol, Self

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from parallel_infer.answers import dense_results
from parallel_infer.answers.answer import Answer
from parallel_infer.answers.summary import in_words
from parallel_infer.cli.tables import print_table
from parallel_infer.errors import InferError
from parallel_infer.redaction import redacted
from parallel_infer.tracking.counting import texts_of
from parallel_infer.video.counts import Tally
from parallel_infer.video.events import Change, Result
from parallel_infer.video.sources import SourceState
from parallel_infer.video.streams import Streams

_MOST_CLASSES = 5  # in a line
_STATS_EVERY = 5.0  # seconds
COUNTS = ("frames", "answered", "still", "dropped", "expired", "failed", "restarts")
COLUMNS = ("source", "state", *COUNTS, "age p50", "age p99")


class Display(Protocol):
    """Shows results and changes; used in a `with`."""

    def result(self, result: Result) -> None: ...
    def change(self, change: Change) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...


class _Lines:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        sys.stdout.flush()


class JsonLines(_Lines):
    """One object per frame, or per change of state: then with "state" and "message" instead of a result."""

    def result(self, result: Result) -> None:
        click.echo(json.dumps(result.to_dict()))

    def change(self, change: Change) -> None:
        row = {"source": change.source, "state": change.state.value, "message": change.message}
        click.echo(json.dumps({**row, **change.tally.counts(), **_counted(change)}))


class TextLines(_Lines):
    """A line per frame on standard output, states and errors on standard error."""

    def result(self, result: Result) -> None:
        at = "" if result.position is None else f"at {result.position:.2f} s, "
        still = "still " if isinstance(result.answer, Answer) and result.answer.still else ""
        line = f"{result.source} #{result.frame} {at}{result.age * 1000:.0f} ms old: {still}{summary(result.answer)}"
        click.echo(line, err=isinstance(result.answer, InferError))

    def change(self, change: Change) -> None:
        click.echo(described(change), err=True)


class Rows:
    """A row per source that is kept up to date, with a bar where the length is known. On standard error."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._console = Console(stderr=True)
        columns = ("{task.description}", "{task.fields[state]}")
        counts = ("{task.fields[rate]}", "{task.fields[age]}", "{task.fields[lost]}", "{task.fields[found]}")
        self._progress = Progress(
            *(TextColumn(column, markup=False) for column in columns),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            *(TextColumn(column, markup=False) for column in counts),
            console=self._console,
        )
        self._rows: dict[str, TaskID] = {}
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        empty: dict[str, Any] = {"state": "", "rate": "", "age": "", "lost": "", "found": ""}
        for source in self._streams.sources:
            self._rows[source.name] = self._progress.add_task(source.name, total=None, **empty)
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def result(self, result: Result) -> None:
        tally = result.tally
        feed = self._streams.feed(result.source)
        rate = tally.answered / max(0.001, time.monotonic() - self._started)
        self._progress.update(
            self._rows[result.source],
            completed=result.frame + 1,
            total=feed.frames or None,
            rate=f"{rate:.1f}/s",
            age=f"{result.age * 1000:.0f} ms old",
            lost=lost(tally),
            found=summary(result.answer),
        )

    def change(self, change: Change) -> None:
        self._progress.update(self._rows[change.source], state=change.state.value, lost=lost(change.tally))
        if change.state in (SourceState.RECONNECTING, SourceState.FAILED):
            self._console.print(Text(described(change)))


class Statistics:
    """Wraps a display and prints a table of all sources to standard error, now and then and at the end."""

    def __init__(self, inner: Display, streams: Streams) -> None:
        self._inner = inner
        self._streams = streams
        self._next = time.monotonic() + _STATS_EVERY
        self._alone = not isinstance(inner, Rows)

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._inner.__exit__(*error)
        print_statistics(self._streams)

    def result(self, result: Result) -> None:
        self._inner.result(result)
        if self._alone and time.monotonic() >= self._next:
            self._next = time.monotonic() + _STATS_EVERY
            print_statistics(self._streams)

    def change(self, change: Change) -> None:
        self._inner.change(change)


def display_for(streams: Streams, form: str | None) -> Display:
    """JSON where it was asked for; rows where people watch; lines where the output is piped on."""
    if form == "json":
        return JsonLines()
    return Rows(streams) if sys.stdout.isatty() and sys.stderr.isatty() else TextLines()


def print_statistics(streams: Streams) -> None:
    """A table of all sources on standard error."""
    rows = [
        (name, streams.feed(name).state.value, *map(str, tally.counts().values()), _age(tally, 50), _age(tally, 99))
        for name, tally in streams.tallies.items()
    ]
    print_table(COLUMNS, rows, file=sys.stderr)


def summary(answer: Answer | InferError) -> str:
    """An answer in a few words."""
    if isinstance(answer, InferError):
        return f"{answer.code}: {redacted(str(answer))}"
    if answer.task == "fan":
        return "; ".join(f"{name}: {summary(part)}" for name, part in answer.parts.items())
    if answer.task == "tensor":
        return ", ".join(f"{name} {list(array.shape)}" for name, array in answer.tensors.items())
    if answer.task == "classify":
        return f"{answer.top} {answer.scores[0]:.2f}" if answer.top else "nothing"
    if answer.task == "text":
        return answer.text or "no text"
    if answer.task in dense_results.TASKS:
        return _dense_summary(answer)
    counts = Counter(answer.names).most_common()
    more = f", and {len(counts) - _MOST_CLASSES} more classes" if len(counts) > _MOST_CLASSES else ""
    found = ", ".join(f"{count} {name}" for name, count in counts[:_MOST_CLASSES]) + more if counts else "nothing"
    told = _told_below(answer)
    return f"{found} ({told})" if told else found


def _told_below(answer: Answer) -> str:
    """What the next steps of a chain say about its objects, but for vectors, which say nothing to people."""
    words: dict[str, list[str]] = {}
    for name, child in (item for children in answer.children for item in children.items()):
        if isinstance(child, InferError) or child.embedding is None:
            words.setdefault(name, []).append(in_words(child))
    shown = {
        name: (*said[:_MOST_CLASSES], *(["..."] if len(said) > _MOST_CLASSES else [])) for name, said in words.items()
    }
    return "; ".join(f"{name}: {', '.join(said)}" for name, said in shown.items())


def _dense_summary(answer: Answer) -> str:
    if answer.embedding is not None:
        return f"a vector of {len(answer.embedding)} numbers"
    if answer.areas is not None:
        whole = max(1, answer.width * answer.height)
        shares = list(zip(answer.names, answer.areas.tolist(), strict=True))
        more = f", and {len(shares) - _MOST_CLASSES} more classes" if len(shares) > _MOST_CLASSES else ""
        return ", ".join(f"{name} {100 * area / whole:.0f} %" for name, area in shares[:_MOST_CLASSES]) + more
    numbers = answer.to_dict()["map"]
    score = "".join(f", score {number:.3g}" for number in answer.scores.tolist())
    return f"{numbers['min']:.4g} to {numbers['max']:.4g}{score}"


def described(change: Change) -> str:
    """A change of state in one line; a final one with the counts, and a line for each that was counted at."""
    line = f"{change.source}: {change.state.value}" + (f": {change.message}" if change.message else "")
    if not change.state.final:
        return line
    tally = change.tally
    counts = [f"\n{change.source}: {text}" for text in texts_of(change.counts)] if change.counts else []
    line = f"{line}; {tally.frames} frames, {tally.answered} answered, {lost(tally)}, {tally.failed} failed"
    return line + "".join(counts)


def _counted(event: Change) -> dict[str, Any]:
    return {} if event.counts is None else {"counts": event.counts.to_dict()}


def lost(tally: Tally) -> str:
    """What was dropped, and what expired where something did."""
    return f"{tally.dropped} dropped" + (f", {tally.expired} expired" if tally.expired else "")


def _age(tally: Tally, percent: float) -> str:
    age = tally.age(percent)
    return "-" if age is None else f"{age * 1000:.0f} ms"
