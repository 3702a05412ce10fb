"""Options of `stream` that follow objects and count them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from parallel_infer.cli.parameter_types import FiniteRange
from parallel_infer.errors import ConfigError

if TYPE_CHECKING:
    from parallel_infer.tracking.settings import Tracking

_CHANGING = ("--track-keep", "--track-low", "--track-by", "--track-likeness", "--count-at")
Command = TypeVar("Command", bound=Callable[..., Any])


def track_options(command: Command) -> Command:
    """--track and what belongs to it; `tracking` makes them one value."""
    for option in reversed(
        (
            click.option(
                "--track",
                is_flag=True,
                help="Follow objects: each has a number that lasts, in --json, in the drawn picture and in Python. "
                "Needs pip install 'parallel-infer[track]'.",
            ),
            click.option(
                "--track-keep",
                type=FiniteRange(0, 3600, min_open=True),
                metavar="SECONDS",
                help="Seconds for which an object that is not seen keeps its number.  [default: 1.0]",
            ),
            click.option(
                "--track-low",
                type=FiniteRange(0, 1),
                metavar="SCORE",
                help="Score down to which an object that is followed is still reported; one that is new needs --conf.  "
                "[default: 0.1; of fans and chains what is reported anyway]",
            ),
            click.option(
                "--track-by",
                metavar="STEP",
                help="The step of a chain whose embeddings tell objects apart that cross or were hidden; boxes: none.  "
                "[default: the first step that gives embeddings]",
            ),
            click.option(
                "--track-likeness",
                type=FiniteRange(-1, 1),
                metavar="COSINE",
                help="Least likeness of two embeddings of one object.  [default: 0.8]",
            ),
            click.option(
                "--count-line",
                "lines",
                multiple=True,
                metavar="X1,Y1,X2,Y2[:NAME]",
                help="Count what crosses a line, by class: from the left to the right of the way from its first to its "
                "second point is in, the other way is out. Pixels, or fractions of the picture where no number is "
                "above 1. Implies --track.",
            ),
            click.option(
                "--count-zone",
                "zones",
                multiple=True,
                metavar="X,Y,X,Y,X,Y...[:NAME]",
                help="Count what is in an area, and what ever came into it, by class. Implies --track.",
            ),
            click.option(
                "--count-at",
                type=click.Choice(["bottom", "centre"]),
                help="The point of an object that crosses and is inside: the middle of its box's lower edge, or its "
                "centre.  [default: bottom]",
            ),
        )
    ):
        command = option(command)
    return command


def _check_embeddings(names: Sequence[str], by: str | None, served: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises ConfigError where no object of these models would have an embedding, by the step `by` or by any."""
    from parallel_infer.chains.steps import steps_below
    from parallel_infer.tracking.settings import BOXES

    if by == BOXES or not any(name in served for name in names):  # an unknown model is told of later
        return
    option = "--track-likeness" if by is None else f"--track-by {by}"
    chains = {name: str(facts.get("chain", "")) for name, facts in served.items()}
    steps = [step for name in names for step in steps_below(name, chains)]
    giving = [step for step in steps if served.get(step, {}).get("task") == "embedding"]
    if by in giving or (by is None and giving):
        return
    why = f"no step of {'+'.join(names)!r} gives any"
    if by in steps:
        why = f"{by!r} does {served[by]['task'] if by in served else 'something else'}"
    elif by is not None and steps:
        why = f"{'+'.join(names)!r} has no step {by!r}"
    example = 'as those of --chain people="detector > embedder" would have'
    take = f"; take {' or '.join(giving)}" if giving else f", {example}"
    raise ConfigError(f"{option} needs objects with embeddings, and {why}{take}")


def tracking(given: dict[str, Any], model: str, served: Sequence[dict[str, Any]]) -> Tracking | None:
    """How objects are to be followed; None: not at all. `served` are the models of the server.

    Raises ConfigError for lines and zones that are none, a model without boxes, and where a library is missing.
    """
    wanted = {name: given[name] for name in ("track", "lines", "zones") if given[name]}
    others = {option: given.get(option[2:].replace("-", "_")) for option in _CHANGING}
    if not wanted:
        for name, value in others.items():
            if value is not None:
                raise ConfigError(f"{name} changes how objects are followed: add --track, --count-line or --count-zone")
        return None
    from parallel_infer.chains.steps import JOIN
    from parallel_infer.tracking import following_for
    from parallel_infer.tracking.settings import TASKS, USUAL_LOW, Anchor, Tracking
    from parallel_infer.tracking.shapes import Line, Zone

    option = "--track" if given["track"] else "--count-line" if given["lines"] else "--count-zone"
    asked = [facts for facts in served if facts["name"] in model.split(JOIN)]
    if asked and not any(facts["task"] in TASKS for facts in asked):
        fitting = sorted(str(facts["name"]) for facts in served if facts["task"] in TASKS)
        raise ConfigError(
            f"{option} follows the boxes of objects, and {model!r} answers with none: its task is {asked[0]['task']}"
            + (f"; of those that are served take {' or '.join(fitting)}" if fitting else "")
        )
    defaults = Tracking()
    # What a chain or a fan is asked for changes what else is done: there only what is reported anyway is followed.
    plain = asked[0] if len(asked) == 1 and JOIN not in model and not asked[0].get("chain") else None
    usual = given["options"].get("confidence", plain and plain.get("thresholds", {}).get("confidence"))
    start = given["conf"] if given["conf"] is not None else usual if isinstance(usual, int | float) else None
    usual_low = None if plain is None else USUAL_LOW if start is None else min(USUAL_LOW, start)
    by, likeness = given.get("track_by"), given.get("track_likeness")
    if by is not None or likeness is not None:
        _check_embeddings(model.split(JOIN), by, {facts["name"]: facts for facts in served})
    made = Tracking(
        start=start,
        low=usual_low if given["track_low"] is None else given["track_low"],
        keep=given["track_keep"] or defaults.keep,
        lines=tuple(Line.parse(text, number) for number, text in enumerate(given["lines"], 1)),
        zones=tuple(Zone.parse(text, number) for number, text in enumerate(given["zones"], 1)),
        anchor=Anchor(given["count_at"] or defaults.anchor.value),
        by=by,
        likeness=defaults.likeness if likeness is None else likeness,
    )
    following_for(made)
    return made
