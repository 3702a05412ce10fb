"""The text of chains: what it means, and what is said of a text that means nothing."""

from __future__ import annotations

import re

import pytest

from parallel_infer.chains.steps import Step, read_chain, steps_below
from parallel_infer.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("detector", Step("detector")),
        ("detector > reader", Step("detector", {}, (Step("reader"),))),
        (
            "detector(class_filter=car, confidence=0.4)>reader",
            Step("detector", {"class_filter": "car", "confidence": 0.4}, (Step("reader"),)),
        ),
        ("a > b, c", Step("a", {}, (Step("b"), Step("c")))),
        ("a > b > c, d", Step("a", {}, (Step("b", {}, (Step("c"), Step("d"))),))),
        ("a > (b > c), d", Step("a", {}, (Step("b", {}, (Step("c"),)), Step("d")))),
        ("a > b(of=car|traffic light|3, mask=TRUE, max_objects=2)",
         Step("a", {}, (Step("b", {"of": ["car", "traffic light", 3], "mask": True, "max_objects": 2}),))),
        ("a()", Step("a")),
    ],
)  # fmt: skip
def test_a_text_means_steps(text: str, step: Step) -> None:
    assert read_chain("x", text) == step


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the name of a model was expected"),
        ("a >", "the name of a model was expected where it ends"),
        ("a > b,", "where it ends"),
        ("a > > b", "the name of a model was expected where '>'"),
        ("a(confidence)", "')' came where '=' was expected"),
        ("a(confidence=)", "a value of 'confidence' was expected"),
        ("a(x=1", "the end came where ',' was expected"),
        ("a(x=1, x=2)", "the option 'x' of 'a' is there twice"),
        ("a > (b", "the end came where ')' was expected"),
        ("a b) > c", "')' came where the end was expected"),
        (" > ".join("abcdefghij"), "more than 8 steps"),
    ],
)
def test_a_text_that_means_nothing_is_refused_with_its_place(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=rf"chain 'x': .*{re.escape(why)}"):
        read_chain("x", text)


def test_what_is_asked_about_the_objects_of_a_chain_of_chains() -> None:
    chains = {"a": "b > x, y(top=1)", "b": "m > (z > w)", "m": "", "loop": "loop > x"}
    assert steps_below("a", chains) == ["z", "x", "y"]
    assert steps_below("b", chains) == ["z"]
    assert steps_below("m", chains) == steps_below("unknown", chains) == []
    assert steps_below("loop", chains) == ["x"]
