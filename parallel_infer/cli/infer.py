"""`parallel-infer infer`: pictures in, answers out, as a table, JSON lines or CSV, and drawn if wished."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from parallel_infer.cli.answer_formats import FORMATS, Format
from parallel_infer.cli.answer_options import answer_options, options_of
from parallel_infer.cli.common_options import timeout_option
from parallel_infer.cli.model_argument import model_and_rest, model_option
from parallel_infer.cli.parameter_types import GivenPath
from parallel_infer.cli.saved_pictures import SavedPictures
from parallel_infer.cli.server_options import GivenKey, connected, file_of, server_options
from parallel_infer.cli.several_csv import failures_in
from parallel_infer.errors import InferError, ServerUnavailable, Unanswered, Unauthorized, UnknownModel
from parallel_infer.pictures.files import look_into

if TYPE_CHECKING:
    from parallel_infer import Answer, Client

CHUNK = 128  # pictures between two writes, so that a large folder needs no more memory than that
STDIN = Path("/dev/stdin")  # what - stands for, under its other name
SAME_FOR_ALL = (ServerUnavailable, Unanswered, Unauthorized, UnknownModel)  # errors that the next picture would get too


@click.command("infer")
@click.argument("words", nargs=-1, required=True, metavar="[MODEL] PICTURE...")
@server_options
@model_option
@answer_options
@timeout_option(30.0, "Seconds that one picture may take.")
@click.option(
    "--save",
    type=GivenPath(path_type=Path),
    metavar="FILE|DIR",
    help="Write the picture, with its answer drawn on it, to this .jpg, .png or .webp file; or each to this folder.",
)
@click.option("--json", "form", flag_value="json", help="Print one JSON object per picture and line.")
@click.option("--csv", "form", flag_value="csv", help="Print one line per object, with a heading.")
def command(
    words: tuple[str, ...],
    server: str,
    key: GivenKey,
    model: str | None,
    conf: float | None,
    iou: float | None,
    options: dict[str, Any],
    timeout: float,
    save: Path | None,
    form: str | None,
) -> None:
    """Ask a server about pictures: files, folders of them, or - for a picture at the standard input.

    \b
    parallel-infer infer detector street.jpg yard.jpg
    parallel-infer infer --model detector photos
    curl -s https://HOST/street.jpg | parallel-infer infer detector -

    Without --model the first argument is the model, also where a file has the same name.

    A picture that fails is reported and does not stop the others; the exit code is then 1. So is a part of a fan, or
    an object of a chain, that has an error in the place of its answer.
    """  # noqa: D301  # click looks for the character itself
    options = options_of(conf, iou, options)
    shown = FORMATS[form or "table"]()
    name, pictures = model_and_rest(model, words, server, key)
    files, left_out = _files(STDIN if picture == "-" else Path(picture) for picture in pictures)
    piped = _piped(files)
    kept = {file: picture.content for file, picture in piped.items()}
    folder = SavedPictures(save, files, file_of(key), kept) if save else None
    with connected(server, key, timeout) as client, shown:
        answers = _answers(client, name, files, piped, options)
        failed = _show_all(answers, shown, folder)
    for text in left_out:  # last, where it is not lost among the answers
        click.echo(text, err=True)
    if failed:
        raise click.exceptions.Exit(1)


def _show_all(answers: Iterable[tuple[Path, Answer | InferError]], shown: Format, folder: SavedPictures | None) -> int:
    """Report every file; the number of those that failed."""
    failed = 0
    for number, (file, answer) in enumerate(answers):
        if isinstance(answer, SAME_FOR_ALL) and number == 0:
            raise answer
        if isinstance(answer, InferError):
            failed += 1
            shown.error(file, answer)
            continue
        shown.answer(file, answer)
        if failures := failures_in(answer):
            failed += 1
            shown.errors_within(file, failures)
        if folder is not None and (error := folder.save(number, answer)):
            failed += 1
            click.echo(f"{file}: {error}", err=True)
    return failed + (folder.unsaved if folder is not None else 0)


def _answers(
    client: Client, model: str, files: Iterable[Path], piped: Mapping[Path, Piped], options: dict[str, Any]
) -> Iterator[tuple[Path, Answer | InferError]]:
    remaining = iter(files)
    # first one alone: where the server is away or does not know the model, that is said once and at once
    chunks = itertools.chain([list(itertools.islice(remaining, 1))], _chunks(remaining))
    for chunk in chunks:
        pictures: list[Any] = [piped.get(file, file) for file in chunk]
        yield from zip(chunk, client.infer_many(model, pictures, errors="return", **options), strict=True)


def _chunks(files: Iterator[Path]) -> Iterator[list[Path]]:
    while chunk := list(itertools.islice(files, CHUNK)):
        yield chunk


class Piped:
    """A picture that can be read only once; what was read of it is kept."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.content = bytearray()

    def read(self, size: int = -1) -> bytes:
        """The next bytes, `size` at most."""
        piece = self._stream.read(size)
        self.content += piece
        return piece


def _piped(files: Sequence[Path]) -> dict[Path, Piped]:
    """The picture at the standard input, where one of the files is that."""
    if STDIN not in files:
        return {}
    if files.count(STDIN) > 1:
        raise click.UsageError("the standard input (-) holds one picture, and cannot be read twice")
    if sys.stdin is None or sys.stdin.isatty():
        what = "closed" if sys.stdin is None else "a terminal"
        raise click.UsageError(f"the standard input (-) is {what}; expected a picture, as in: ... | infer MODEL -")
    return {STDIN: Piped(sys.stdin.buffer)}


def _files(pictures: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """The files themselves, and those in folders that look like pictures, by name; and what was left out and why."""
    files: list[Path] = []
    left_out: list[str] = []
    for path in pictures:
        if not path.is_dir():
            files.append(path)
            continue
        found = look_into(path)
        if not found.pictures:
            raise click.UsageError(f"the folder {path} holds no pictures{found.left_out and f', but {found.left_out}'}")
        if found.left_out:
            left_out.append(f"left out of {path}: {found.left_out}")
        files += found.pictures
    return files, left_out
