"""Text lines read with CTC: for each step along the line, a score of each character and of "nothing" (the blank).

CRNN, PaddleOCR's recognition models, and most others that read one line at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stages.families.evidence import are_probabilities
from stages.families.facts import Facts
from stages.families.family import Claim, Family, Fit, Misfit, Recipe, Strength

# PaddleOCR's: height kept, the rest of the line filled; pixels to -1..1, in OpenCV's order of colours.
_PADDLE = Recipe("letterbox-corner", ((127.5,) * 3, (127.5,) * 3), "bgr", pad=127)
_BLANKS = ("", "blank", "<blank>", "[blank]", "<blk>", "-", "[PAD]", "<pad>")
_STRIDES = (1, 2, 3, 4, 8, 16, 32)  # pixels of a step
_BLANK, _SPACE = "", " "


def scores_of_steps(facts: Facts) -> tuple[str, int, int] | None:
    """Name, steps and classes of the only output of two dimensions, where it has more than one step."""
    name, shape = facts.only_of_rank(2) or ("", (0, 0))
    return (name, shape[0], shape[1]) if shape[0] >= 2 else None


def fits(facts: Facts, task: str) -> Fit | Misfit:
    table = scores_of_steps(facts)
    if table is None:
        return Misfit(f"found outputs {facts.shown}; expected one [steps, characters]")
    name, steps, classes = table
    listed = facts.names or facts.metadata.character
    if not listed:
        return Misfit(f"found {name} [{steps}, {classes}], and no characters: set names to what its classes read")
    blank, warning = _blank(facts, name, classes, listed)
    if blank is None:
        return Misfit(f"found {classes} classes at each step; expected {len(listed)} characters and a blank")
    return Fit(
        classes,
        f"{name} [{steps}, {classes}] has the scores of {len(listed)} characters at each step, the blank is {blank}",
        {"output": name, "blank": blank, "softmax": not are_probabilities(facts, name), "background": blank},
        names=_characters(listed, classes, blank),
        recipe=_PADDLE if facts.metadata.character else Recipe("stretch"),
        guessed=True,
        unused=facts.besides(name),
        warnings=tuple(filter(None, (warning, _doubt(facts)))),
    )


def follow_from_width(steps: int, width: int) -> bool:
    """Whether steps are parts of a line of so many pixels, as networks with strides make them, a few more or less."""
    return any(abs(steps * stride - width) <= 2 * stride for stride in _STRIDES)


def _doubt(facts: Facts) -> str:
    """Other readers have the same outputs, and the same characters would be lost from what they read."""
    if facts.metadata.character or facts.insisted:
        return ""
    return "read as CTC, with repeats as one; set family = parseq for a model that reads up to an end mark"


def _blank(facts: Facts, name: str, classes: int, listed: tuple[str, ...]) -> tuple[int | None, str]:
    """The class of the blank: the user's, the listed one, PaddleOCR's, or what a picture of noise mostly gives."""
    extra = classes - len(listed)
    if facts.background is not None and -classes <= facts.background < classes and extra in (0, 1, 2):
        return facts.background % classes, ""
    if extra == 2:  # before the characters the blank, behind them the space
        return 0, ""
    if extra == 0:
        named = [number for number in (0, classes - 1) if listed[number].strip().lower() in _BLANKS]
        if named:
            return named[0], ""
    if extra not in (0, 1):
        return None, ""
    if extra == 1 and facts.metadata.character:
        return 0, ""
    best = np.concatenate([np.asarray(values).argmax(axis=1) for values in facts.trials(name)])
    last = int(np.sum(best == classes - 1) > np.sum(best == 0)) * (classes - 1)
    return last, f"the class that means nothing (the blank) is taken to be {last}; set background if it is another"


def _characters(listed: tuple[str, ...], classes: int, blank: int) -> tuple[str, ...]:
    """What each class reads."""
    extra = classes - len(listed)
    if extra == 0:
        return tuple(_BLANK if number == blank else character for number, character in enumerate(listed))
    read = (*listed, _SPACE) if extra == 2 else listed
    return (*read[:blank], _BLANK, *read[blank:])


def claims(facts: Facts) -> Iterator[Claim]:
    if facts.task == "text":
        yield Claim(Strength.TASK, "text", (facts.because,))
    elif facts.task is None and facts.metadata.character:
        yield Claim(Strength.SAID, "text", ("metadata lists the characters that it reads",))
    elif facts.task is None and facts.names:
        doubt = "a line of text, by the number of names; set task if it does something else"
        yield Claim(Strength.SHAPE, "text", (), (doubt,))


FAMILY = Family(name="ctc", readers={"text": None}, fits=fits, claims=claims, options=("background",))
