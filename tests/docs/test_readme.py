"""README.md: its client runs, and its answers are what the shipped models say."""

from __future__ import annotations

from pathlib import Path

import pytest

from parallel_infer import Answer, Client
from parallel_infer.tools.local_server import LocalServer
from tests.docs.pages import Page

PAGE = Page.read("README.md")
ROWS = PAGE.section("What the demo shows").rows("picture", "model", "answer")


def said(text: str) -> list[tuple[str, float]]:
    """The names and scores of an answer as the table writes them."""
    if text == "nothing found":
        return []
    pairs = [pair.rsplit(" ", 1) for pair in text.partition(", and ")[0].split(", ")]
    return [(name, float(score)) for name, score in pairs]


def more(text: str) -> int:
    """How many further objects the table tells of."""
    return int(text.partition(", and ")[2].partition(" ")[0] or 0)


@pytest.mark.parametrize(("picture", "model", "text"), ROWS, ids=lambda value: str(value)[:20])
def test_answers_of_the_demo(server: LocalServer, pictures: Path, picture: str, model: str, text: str) -> None:
    with Client(server.address, timeout=30.0) as client:
        answer = client.infer(model, pictures / picture)
    pairs = said(text)

    assert isinstance(answer, Answer)
    assert len(answer) == len(pairs) + more(text)
    assert sorted(answer.names[: len(pairs)]) == sorted(name for name, _ in pairs)
    assert answer.scores[: len(pairs)].tolist() == pytest.approx([score for _, score in pairs], abs=0.02)


def test_client(server: LocalServer, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = PAGE.section("A client").blocks("python")
    code = code.replace("tcp://127.0.0.1:5555", server.address)
    for placeholder, picture in (("street.jpg", "astronaut.png"), ("a.jpg", "coffee.png"), ("b.jpg", "chelsea.png")):
        code = code.replace(placeholder, str(pictures / picture))
    exec(code, {})
    printed = capsys.readouterr().out.splitlines()

    assert len(code.splitlines()) <= 12
    assert printed[0].startswith("person 0.73 at [")
    assert [line.split(" in ")[0] for line in printed[-2:]] == ["4 found", "4 found"]
