"""Text lines read character by character, up to an end mark: PARSeq and other attention decoders.

Unlike CTC's, steps are places in the text: a character that stands twice is read twice, and nothing follows the end
(Bautista and Atienza, "Scene Text Recognition with Permuted Autoregressive Sequence Models", arXiv:2207.06966).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stages.families.evidence import are_probabilities
from stages.families.facts import Facts
from stages.families.family import Claim, Family, Fit, Misfit, Recipe, Strength
from stages.families.known.ctc import follow_from_width, scores_of_steps

_ENDS = ("[e]", "[eos]", "<eos>", "</s>", "eos", "[s]")
_SPECIAL = (1, 3)  # classes besides the characters: the end; the end, the beginning and what fills up
_RECIPE = Recipe("stretch", ((127.5,) * 3, (127.5,) * 3), filter="bicubic")


def fits(facts: Facts, task: str) -> Fit | Misfit:
    table = scores_of_steps(facts)
    if table is None:
        return Misfit(f"found outputs {facts.shown}; expected one [places, characters]")
    name, places, classes = table
    listed = facts.names
    if not listed:
        return Misfit(f"found {name} [{places}, {classes}], and no characters: set names to what its classes read")
    end, warning = _end(facts, name, classes, listed)
    if end is None:
        return Misfit(f"found {classes} classes at each place; expected {len(listed)} characters and an end mark")
    return Fit(
        classes,
        f"{name} [{places}, {classes}] has the scores of {len(listed)} characters at each place, the end is {end}",
        {
            "output": name,
            "blank": end,
            "background": end,
            "softmax": not are_probabilities(facts, name),
            "until_end": True,
        },
        names=_characters(listed, classes, end),
        guessed=True,
        unused=facts.besides(name),
        warnings=(warning,) if warning else (),
    )


def _end(facts: Facts, name: str, classes: int, listed: tuple[str, ...]) -> tuple[int | None, str]:
    """The class that ends the text: the user's, the listed one, or the first where trial pictures have it at all."""
    extra = classes - len(listed)
    if extra != 0 and extra not in _SPECIAL:
        return None, ""
    if facts.background is not None and -classes <= facts.background < classes:
        return facts.background % classes, ""
    if extra == 0:
        named = [number for number, character in enumerate(listed) if character.strip().lower() in _ENDS]
        return (named[0], "") if named else (None, "")
    best = np.concatenate([np.asarray(values).argmax(axis=1) for values in facts.trials(name)])
    behind = len(listed)
    end = behind if np.any(best == behind) and not np.any(best == 0) else 0
    return end, f"the class that ends the text is taken to be {end}; set background if it is another"


def _characters(listed: tuple[str, ...], classes: int, end: int) -> tuple[str, ...]:
    """What each class reads; the end and other marks read nothing."""
    extra = classes - len(listed)
    if extra == 0:
        return tuple("" if number == end else character for number, character in enumerate(listed))
    first = 1 if end == 0 else 0
    return ("",) * first + listed + ("",) * (extra - first)


def claims(facts: Facts) -> Iterator[Claim]:
    """Only where the steps are no parts of the line, as CTC's are."""
    table = scores_of_steps(facts)
    if table is None or not facts.names or facts.metadata.character or follow_from_width(table[1], facts.size[1]):
        return
    doubt = f"{table[1]} steps are no parts of a line {facts.size[1]} wide: read character by character"
    doubt += ", up to an end mark; set family = ctc if the model has blanks"
    if facts.task == "text":
        yield Claim(Strength.TASK, "text", (facts.because,), (doubt,))
    elif facts.task is None:
        yield Claim(Strength.SHAPE, "text", (), (doubt,))


FAMILY = Family(
    name="parseq",
    readers={"text": None},
    fits=fits,
    claims=claims,
    recipe=_RECIPE,
    options=("background",),
    export="model = torch.hub.load('baudm/parseq', 'parseq', pretrained=True, decode_ar=False).eval(), then "
    "torch.onnx.export as for any PyTorch model, the batch dynamic",
)
