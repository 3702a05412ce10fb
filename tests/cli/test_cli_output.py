"""Tables, maps and answers as people read them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parallel_infer import Answer
from parallel_infer.cli.answer_formats import Csv, Tables
from parallel_infer.cli.plain_maps import cell, print_map
from parallel_infer.cli.tables import aligned, print_table
from parallel_infer.supervisor.memory_report import size_text


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_columns_are_straight_and_numbers_right() -> None:
    assert aligned([("name", "n"), ("a", "5"), ("long", "1000")]) == ["name     n", "a        5", "long  1000"]


def test_a_pipe_gets_plain_text_and_a_terminal_a_drawn_table() -> None:
    plain, drawn = io.StringIO(), Terminal()
    for stream in (plain, drawn):
        print_table(("name", "size"), [("[red]a", "5")], "title", stream)
    assert plain.getvalue() == "title\nname    size\n[red]a     5\n"
    assert "title" in drawn.getvalue()
    assert "[red]a" in drawn.getvalue()  # a name is no markup
    assert "━" in drawn.getvalue()


def test_a_table_without_rows_or_heading() -> None:
    for stream in (io.StringIO(), Terminal()):
        print_table(("name", "size"), [], file=stream)
        assert "name" in stream.getvalue()
    stream = io.StringIO()
    print_table(("", ""), [("a", "b")], file=stream)
    assert stream.getvalue() == "a  b\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (True, "yes"),
        (1.23456789, "1.23457"),
        ({"slots": 4, "free": 3}, "3 of 4 free"),
        ({}, "-"),
        ({"1": 2, "2": False}, "1:2 2:no"),
        ([["a", [1, 2]], "b"], "[a [1 2]] b"),
        (["x" * 50], "x" * 37 + "..."),
    ],
)
def test_any_value_has_a_cell(value: object, text: str) -> None:
    assert cell(value) == text


def test_any_map_is_shown_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    wide = {f"key{number}": number for number in range(10)}
    print_map(
        {
            "jobs": 3,
            "models": {"a": wide, "b": {**wide, "extra": 1}},
            "rings": [{"slots": 1}, {"slots": 2}],
            "gateway": {"up_time": 1.5, "counts": {"x": 1}},
        }
    )
    blocks = capsys.readouterr().out.strip().split("\n\n")
    assert blocks[0] == "jobs  3"
    assert blocks[1].splitlines()[:3] == ["models", "       a  b", "key0   0  0"]
    assert blocks[1].splitlines()[-1] == "extra  -  1"
    assert blocks[2].splitlines() == ["rings", "   slots", "1      1", "2      2"]
    assert blocks[3:] == ["gateway\nup time  1.5", "gateway counts\nx  1"]


def test_sizes_are_said_as_people_say_them() -> None:
    assert [size_text(size) for size in (0, 1023, 1024, 5 << 20, 3 << 30, 5 << 40)] == [
        "0 B",
        "1023 B",
        "1.0 KB",
        "5.0 MB",
        "3.0 GB",
        "5.0 TB",
    ]


def test_answers_of_all_kinds_print(capsys: pytest.CaptureFixture[str]) -> None:
    shown, file = Tables(), Path("a.png")
    shown.answer(file, Answer("tensor", "m", {"out": np.zeros((2, 3), np.float32)}))
    shown.answer(file, Answer("detect", "m", {}))
    classes: dict[str, np.ndarray[Any, Any]] = {
        "classes": np.arange(7),
        "scores": np.linspace(1, 0.4, 7, dtype=np.float32),
    }
    shown.answer(file, Answer("classify", "m", classes, {0: "cat"}))
    tensor, nothing, classified, _ = capsys.readouterr().out.split("\n\n")
    assert tensor.splitlines()[2].split() == ["out", "float32", "2x3"]
    assert nothing == "a.png: nothing found"
    assert classified.startswith("a.png: cat\n")
    assert len(classified.splitlines()) == 2 + 5


def test_tensors_have_no_csv() -> None:
    with Csv() as shown, pytest.raises(Exception, match="answers with tensors, which have no CSV; use --json"):
        shown.answer(Path("a"), Answer("tensor", "m", {"out": np.zeros(1)}))
