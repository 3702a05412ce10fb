"""MODEL in front of what it is asked about, as people type it, or --model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from parallel_infer.cli.server_options import GivenKey, connected
from parallel_infer.redaction import redacted_address


def model_and_rest(
    option: str | None, words: Sequence[str], server: str, key: GivenKey, rest: str = "PICTURE..."
) -> tuple[str, tuple[str, ...]]:
    """The model's name, and the words that are no model.

    With --model every word is one of `rest`. Without, the first word is the model, also where a file has its name;
    a file that no model has the name of means that the model was forgotten. Raises UsageError.
    """
    if not all((*words, option is None or option)):
        raise click.UsageError("one of the arguments is empty; is a variable of the shell not set?")
    if option is not None:
        return option, tuple(words)
    first, others = words[0], tuple(words[1:])
    shown = redacted_address(first)
    if (Path(first).exists() or "://" in first) and first not in (names := served_models(server, key)):
        known = f" (served are {', '.join(names)})" if names else ""
        raise click.UsageError(
            f"{shown!r} is no model that is served; say which one first: MODEL {rest}, or --model{known}"
        )
    if not others:
        raise click.UsageError(f"nothing to ask {shown!r} about; expected MODEL {rest}")
    return first, others


def model_option(command: Callable[..., object]) -> Callable[..., object]:
    """--model, as the parameter `model`."""
    return click.option(
        "--model",
        help="Name of the model, where it is not the first argument; `parallel-infer models list` shows those served.",
    )(command)


def served_models(server: str, key: GivenKey) -> list[str]:
    """The names of the models that a server serves."""
    with connected(server, key) as client:
        return sorted(str(model["name"]) for model in client.models())
