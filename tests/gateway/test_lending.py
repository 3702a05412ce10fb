"""Rings lent to clients go in the order in which their time is up, whoever used them last goes last."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from parallel_infer.errors import InferError
from parallel_infer.gateway.lending import TTL, Lending
from parallel_infer.protocol import LentSlot
from parallel_infer.shm.segment import exists

BUDGET = 16 * 4096


@pytest.fixture
def lending() -> Iterator[Lending]:
    prefix = f"pinfer-test-{secrets.token_hex(4)}"
    made = Lending(lambda name: f"{prefix}-{name}", BUDGET)
    yield made
    made.close()
    assert made.used == 0


def test_the_timer_is_that_of_the_ring_unused_for_longest(lending):
    assert lending.next_timer() is None
    first, second, third = (lending.lend(b"a", 1, 4096, now) for now in (0.0, 1.0, 2.0))
    assert lending.next_timer() == TTL
    lending.ref(b"a", LentSlot(first["ring"], 0, 10), 3.0)
    assert lending.next_timer() == 1.0 + TTL
    lending.renew(b"a", second["ring"], 4.0)
    assert lending.next_timer() == 2.0 + TTL
    lending.give_back(b"a", third["ring"])
    assert lending.next_timer() == 3.0 + TTL


def test_what_is_used_outlives_what_is_not(lending):
    used, unused = lending.lend(b"a", 1, 4096, 0.0), lending.lend(b"b", 1, 4096, 0.0)
    lending.ref(b"a", LentSlot(used["ring"], 0, 10), TTL - 1.0)
    lending.expire(TTL)
    assert exists(used["segment"])
    assert not exists(unused["segment"])
    with pytest.raises(InferError, match="lend again"):
        lending.renew(b"b", unused["ring"], TTL)
    lending.expire(2 * TTL)
    assert not exists(used["segment"])
    assert lending.used == 0
    assert lending.next_timer() is None
