"""An answer in a few words, as it stands beside the object that it is about."""

from __future__ import annotations

from parallel_infer.answers.answer import Answer
from parallel_infer.errors import InferError

_MOST = 3  # classes that are named


def in_words(found: Answer | InferError) -> str:
    """"AB-123", "sports car 0.91", "2 found: wheel, wheel"; of an error its code."""  # fmt: skip
    if isinstance(found, InferError):
        return found.code
    if found.task == "text":
        return found.text or "no text"
    if found.task == "classify":
        return f"{found.top} {found.scores[0]:.2f}" if found.top is not None else "no class"
    if found.embedding is not None:
        return f"a vector of {len(found.embedding)} numbers"
    if found.task in ("tensor", "map", "fan"):
        return repr(found)
    names = ", ".join(found.names[:_MOST]) + (", ..." if len(found.names) > _MOST else "")
    return f"{len(found)} found" + (f": {names}" if names else "")
