"""Who is measured when: each peer next to a turn of ours, which two peers share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
OURS = "ours"


class Group(NamedTuple, Generic[T]):
    """Servers that run one after the other, `order` in turn; each of `peers` is compared with ours in this group."""

    peers: tuple[T, ...]
    order: tuple[T | str, ...]  # OURS is our server


def groups(peers: Sequence[T], number: int) -> list[Group[T]]:
    """Groups of round `number`: a peer, ours, a peer; a last one without another: ours, a peer.

    Every other round runs backwards, so that what comes first once comes last the next time.
    """
    found = []
    for place in range(0, len(peers), 2):
        pair = tuple(peers[place : place + 2])
        order: tuple[T | str, ...] = (pair[0], OURS, pair[1]) if len(pair) == 2 else (OURS, pair[0])
        found.append(Group(pair, order[::-1] if number % 2 else order))
    return found[::-1] if number % 2 else found
