"""Options in a request's query, and in the fields of a form beside it: each once. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from parallel_infer.errors import BadInput
from parallel_infer.wrong_fields import nearest

NOT_OPTIONS = ("timeout", "format", "api_key", "priority")
OPTIONS = (  # that a plain request may have; forms have other fields too, which are none of ours
    *("decode", "confidence", "iou", "class_filter", "max_detections", "max_candidates", "class_agnostic"),
    *("mask_decode_mode", "tradeoff_factor", "mask_format", "map_format", "map_size", "top"),
    *NOT_OPTIONS,
)


def once_each(query: Mapping[str, str]) -> dict[str, str]:
    """The options of a query by name. Raises BadInput for one that is there twice: either might be meant."""
    names = Counter(name for name, _ in query.items())
    ((name, times),) = names.most_common(1) or [("", 0)]
    if times > 1:
        raise BadInput(f"{name[:64]!r} is given {times} times in the query; give it once")
    return dict(query)


def check_apart(query: Mapping[str, str], body: Mapping[str, object]) -> None:
    """Raises BadInput for an option that is given in the query and in the body as well; a key may be shown twice."""
    for name in query:
        if name in body and name != "api_key":
            raise BadInput(f"{name[:64]!r} is given in the query and in the body; give it once")


def check_spelling(given: Iterable[str], known: Iterable[str], others: Iterable[str] = ()) -> None:
    """Raises BadInput for a name that is none of `known`, and is nearly one of them; `others` are fine as well."""
    known, fine = tuple(known), {*known, *others}
    for name in given:
        if name not in fine and (meant := nearest(name, known)):
            raise BadInput(f"unknown option {name[:64]!r}{meant}")
