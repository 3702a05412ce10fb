"""Payloads that are known to kill workers, by digest, so that they are refused the next time."""

from __future__ import annotations

from collections import Counter, OrderedDict
from hashlib import blake2b
from typing import Any

from parallel_infer.crops import Crop
from parallel_infer.ipc.messages import PayloadKind

_DIGEST = 16  # bytes


class KnownPoison:
    """The last `most` poisonous payloads. Free while there are none, and nearly free for sizes that are not theirs."""

    def __init__(self, most: int = 1024) -> None:
        self._most = most
        self._digests: OrderedDict[bytes, int] = OrderedDict()  # to the payload's size
        self._sizes: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._digests)

    def remember(self, kind: PayloadKind, model: str, payload: Any, crop: Crop | None = None) -> None:
        """Know a payload from now on; the oldest is forgotten where there are too many."""
        found = digest(kind, model, payload, crop)
        if found not in self._digests:
            self._sizes[len(payload)] += 1
        self._digests[found] = len(payload)
        self._digests.move_to_end(found)
        if len(self._digests) > self._most:
            _, size = self._digests.popitem(last=False)
            self._sizes[size] -= 1

    def knows(self, kind: PayloadKind, model: str, payload: Any, crop: Crop | None = None) -> bool:
        """Whether a payload killed workers before."""
        if not self._sizes[len(payload)]:
            return False
        found = digest(kind, model, payload, crop)
        if found not in self._digests:
            return False
        self._digests.move_to_end(found)
        return True


def digest(kind: PayloadKind, model: str, payload: Any, crop: Crop | None = None) -> bytes:
    """Of a payload and what reads it: a picture is read by the same decoder whatever the model.

    With a crop, it is that part of the picture for that model: the picture itself was read before.
    """
    salt = "" if kind == PayloadKind.PICTURE else model
    if crop is not None:
        salt = f"{model} {crop}"
    return blake2b(payload, digest_size=_DIGEST, key=blake2b(salt.encode(), digest_size=_DIGEST).digest()).digest()
