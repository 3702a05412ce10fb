"""MODEL first, or --model: which word is the model is told by a rule, not by what happens to lie in the folder."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from parallel_infer.cli import model_argument
from parallel_infer.cli.model_argument import model_and_rest


@pytest.fixture(autouse=True)
def _served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A server of two models, and a folder with two files, one of which has the name of a model."""
    monkeypatch.setattr(model_argument, "served_models", lambda server, key: ["detector", "segmenter"])
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "detector"):
        Path(name).touch()


def split(*words: str, model: str | None = None) -> tuple[str, tuple[str, ...]]:
    return model_and_rest(model, words, "tcp://127.0.0.1:1", None)


def test_the_first_word_is_the_model() -> None:
    assert split("segmenter", "a.jpg", "b.jpg") == ("segmenter", ("a.jpg", "b.jpg"))


def test_a_file_that_is_named_like_a_model_is_the_model_in_front_and_a_picture_behind() -> None:
    assert split("detector", "a.jpg") == ("detector", ("a.jpg",))
    assert split("segmenter", "detector") == ("segmenter", ("detector",))
    assert split("detector", "detector") == ("detector", ("detector",))


def test_with_the_option_every_word_is_a_picture() -> None:
    assert split("detector", "a.jpg", model="segmenter") == ("segmenter", ("detector", "a.jpg"))
    assert split("a.jpg", model="segmenter") == ("segmenter", ("a.jpg",))


def test_a_name_that_is_neither_goes_to_the_server_who_knows_its_models() -> None:
    assert split("detecter", "a.jpg") == ("detecter", ("a.jpg",))


@pytest.mark.parametrize("words", [("a.jpg",), ("a.jpg", "detector")])
def test_a_forgotten_model_is_said_with_those_that_are_served(words: tuple[str, ...]) -> None:
    with pytest.raises(click.UsageError, match="'a.jpg' is no model that is served.*detector, segmenter"):
        split(*words)


def test_a_model_alone_is_told_what_is_missing() -> None:
    with pytest.raises(click.UsageError, match="nothing to ask 'segmenter' about"):
        split("segmenter")


def test_no_password_is_shown_of_an_address_without_a_model() -> None:
    with pytest.raises(click.UsageError) as caught:
        split("rtsp://user:hunter2@camera/1")
    assert "hunter2" not in str(caught.value)
