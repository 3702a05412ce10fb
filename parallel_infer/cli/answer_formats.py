"""How `infer` prints answers: a table per picture, one JSON object per line, or CSV."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import click

from parallel_infer.answers import dense_results
from parallel_infer.answers.summary import in_words
from parallel_infer.cli import several_csv
from parallel_infer.cli.several_csv import Failure
from parallel_infer.cli.tables import print_table
from parallel_infer.errors import BadInput, InferError

if TYPE_CHECKING:
    from parallel_infer import Answer

MOST_CLASSES = 5  # of a classification, in a table
COLUMNS = ("file", "class", "class_id", "confidence", "x1", "y1", "x2", "y2")


class Format(Protocol):
    """Prints answers and errors one after the other; used in a `with`."""

    def answer(self, file: Path, answer: Answer) -> None: ...
    def error(self, file: Path, error: InferError) -> None: ...
    def errors_within(self, file: Path, failures: Sequence[Failure]) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...


class _Plain:
    """Errors go to standard error, so that what is piped on holds answers alone."""

    def error(self, file: Path, error: InferError) -> None:
        click.echo(f"{file}: {error.code}: {error}", err=True)

    def errors_within(self, file: Path, failures: Sequence[Failure]) -> None:
        """Of the parts and objects that have no answer, those that failed of the same are told in one line."""
        for failure in failures:
            more = f" (and {failure.more} more)" if failure.more else ""
            place = " ".join(filter(None, (str(file), failure.path, failure.model)))
            click.echo(f"{place}: {failure.code}: {failure.text}{more}", err=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        sys.stdout.flush()


class Tables(_Plain):
    """A table per picture."""

    def answer(self, file: Path, answer: Answer) -> None:
        self._one(str(file), answer)
        click.echo()

    def _one(self, file: str, answer: Answer) -> None:
        for name, part in answer.parts.items():
            if not isinstance(part, InferError):
                self._one(f"{file} {name}", part)
        if answer.task != "fan":
            self._alone(file, answer)
        for number, children in enumerate(answer.children):
            for name, found in children.items():
                click.echo(f"  {number}, {answer.names[number]}: {name}: {in_words(found)}")
        for name, count in answer.left_out.items():
            click.echo(f"  {name} was not asked about {count} more (settings max_objects, max_crops)")

    def _alone(self, file: str, answer: Answer) -> None:
        if answer.task == "tensor":
            tensors = answer.tensors.items()
            shapes = [(name, array.dtype.name, "x".join(map(str, array.shape))) for name, array in tensors]
            print_table(("output", "dtype", "shape"), shapes, str(file))
        elif answer.task == "classify":
            rows = [_class_row(answer, index) for index in range(min(len(answer), MOST_CLASSES))]
            print_table(("class", "confidence"), rows, f"{file}: {answer.top or 'nothing'}")
        elif answer.task in dense_results.TASKS:
            _print_dense(file, answer)
        elif answer.task == "text":
            click.echo(
                f"{file}: {answer.text} ({confidence_of_text(answer):.3f})" if answer.text else f"{file}: no text"
            )
        else:
            self._objects(file, answer)

    def _objects(self, file: str, answer: Answer) -> None:
        if not len(answer):
            click.echo(f"{file}: nothing found")
            return
        rows = [
            (*_class_row(answer, index), *(f"{value:.0f}" for value in box))
            for index, box in enumerate(answer.boxes.tolist())
        ]
        print_table(("class", "confidence", "x1", "y1", "x2", "y2"), rows, f"{file}: {len(answer)} found")


def confidence_of_text(answer: Answer) -> float:
    """The mean over the characters that a text model read, as the result map has it."""
    return float(answer.to_dict()["confidence"])


def _print_dense(file: str, answer: Answer) -> None:
    """What covers the whole picture, in a few lines."""
    if answer.embedding is not None:
        click.echo(f"{file}: a vector of {len(answer.embedding)} numbers")
    elif answer.areas is not None:
        whole = max(1, answer.width * answer.height)
        found = zip(answer.names, answer.areas.tolist(), strict=True)
        rows = [(name, f"{100 * area / whole:.1f} %", str(area)) for name, area in found]
        print_table(("class", "share", "pixels"), rows, f"{file}: {len(rows)} classes")
    else:
        numbers = answer.to_dict()["map"]
        score = "".join(f", score {number:.3g}" for number in answer.scores.tolist())
        click.echo(f"{file}: numbers from {numbers['min']:.6g} to {numbers['max']:.6g}{score}")


class JsonLines(_Plain):
    """{"file": ..., and the documented result map or "error"} per line."""

    def answer(self, file: Path, answer: Answer) -> None:
        click.echo(json.dumps({"file": str(file), **answer.to_dict()}))

    def error(self, file: Path, error: InferError) -> None:
        click.echo(json.dumps({"file": str(file), "error": {"code": error.code, "message": str(error)}}))

    def errors_within(self, file: Path, failures: Sequence[Failure]) -> None:
        """They stand in the object that was printed."""


class Csv(_Plain):
    """One line per object or class; boxes in pixels, empty for classes alone. Other tasks have columns of their own."""

    def __init__(self) -> None:
        self._writer = csv.writer(sys.stdout, lineterminator="\n")
        self._columns: tuple[str, ...] = ()

    def __exit__(self, *error: object) -> None:
        if not any(error) and not self._columns:
            self._writer.writerow(COLUMNS)
        super().__exit__(*error)

    def answer(self, file: Path, answer: Answer) -> None:
        if answer.task == "fan" or answer.children:
            self._several(file, answer)
            return
        if "boxes" in answer.arrays and not len(answer):
            return  # a chain and a model alone have other headings, and nothing is found of either
        if answer.task == "tensor":
            raise click.UsageError(f"the model {answer.model!r} answers with tensors, which have no CSV; use --json")
        if not self._columns:
            self._columns = _csv_columns(answer)
            self._writer.writerow(self._columns)
        self._writer.writerows(_csv_rows_of(file, answer))

    def _several(self, file: Path, answer: Answer) -> None:
        if not self._columns:
            self._columns = ("file", *several_csv.COLUMNS)
            self._writer.writerow(self._columns)
        for said in several_csv.said_in(answer):
            try:
                self._writer.writerows((file, *row) for row in several_csv.rows_of(said))
            except BadInput as error:
                raise click.UsageError(str(error)) from None


def _csv_columns(answer: Answer) -> tuple[str, ...]:
    if answer.embedding is not None:
        return ("file", *map(str, range(len(answer.embedding))))
    if answer.task == "text":
        return ("file", "text", "confidence")
    if answer.task == "map":
        return ("file", "min", "max", *(["score"] if len(answer.scores) else []))
    return ("file", "class", "class_id", "area", "share") if answer.task == "semantic" else COLUMNS


def _csv_rows_of(file: Path, answer: Answer) -> Iterator[tuple[object, ...]]:
    if answer.task == "text":
        return iter([(file, answer.text, f"{confidence_of_text(answer):.6g}")])
    return _dense_rows(file, answer) if answer.task in dense_results.TASKS else _csv_rows(file, answer)


def _dense_rows(file: Path, answer: Answer) -> Iterator[tuple[object, ...]]:
    if answer.embedding is not None:
        yield (file, *(f"{number:.6g}" for number in answer.embedding.tolist()))
    elif answer.areas is not None:
        whole = max(1, answer.width * answer.height)
        for name, number, area in zip(answer.names, answer.classes.tolist(), answer.areas.tolist(), strict=True):
            yield (file, name, number, area, f"{area / whole:.6g}")
    else:
        numbers = answer.to_dict()["map"]
        scores = [f"{number:.6g}" for number in answer.scores.tolist()]
        yield (file, f"{numbers['min']:.6g}", f"{numbers['max']:.6g}", *scores)


def _csv_rows(file: Path, answer: Answer) -> Iterator[tuple[object, ...]]:
    boxes = answer.boxes.tolist() or [[""] * 4] * len(answer)
    for name, number, score, box in zip(
        answer.names, answer.classes.tolist(), answer.scores.tolist(), boxes, strict=True
    ):
        yield (file, name, number, f"{score:.6g}", *(f"{value:.2f}" if value != "" else "" for value in box))


def _class_row(answer: Answer, index: int) -> tuple[str, str]:
    return answer.names[index], f"{answer.scores[index]:.3f}"


FORMATS: dict[str, type[Tables] | type[JsonLines] | type[Csv]] = {"table": Tables, "json": JsonLines, "csv": Csv}
