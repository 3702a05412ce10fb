"""Shares of clients, and payloads that are known to kill: the parts of the gateway that decide, without sockets."""

from __future__ import annotations

import pytest

from parallel_infer.errors import ResourceUnavailable
from parallel_infer.gateway.fairness import ACTIVE, Shares
from parallel_infer.gateway.poison import KnownPoison
from parallel_infer.ipc.messages import PayloadKind

QUEUE = 8


@pytest.fixture
def shares():
    return Shares()


def ask(shares, client, now, model="m"):
    """Ask for one job; whether it was admitted."""
    share = shares.of(client, model, now)
    try:
        shares.check(share, model, QUEUE)
    except ResourceUnavailable:
        return False
    share.enter(model, "ring")
    return True


def test_alone_a_client_is_not_limited(shares):
    assert all(ask(shares, b"a", 0.0) for _ in range(10 * QUEUE))


def test_two_share_a_queue(shares):
    assert ask(shares, b"b", 0.0)
    admitted = sum(ask(shares, b"a", 0.0) for _ in range(QUEUE))
    assert admitted == QUEUE // 2


def test_one_that_was_only_refused_counts_too(shares):
    """It came when the queue was full: the greedy one must make room although the other has nothing pending."""
    greedy = shares.of(b"a", "m", 0.0)
    for _ in range(QUEUE):
        greedy.enter("m", "ring")
    shares.of(b"b", "m", 0.0)  # asks, and is refused further on
    for pending in range(QUEUE, QUEUE // 2 - 1, -1):
        assert not ask(shares, b"a", 0.5)
        greedy.leave("m", "ring")
        assert greedy.pending["m"] == pending - 1
    assert ask(shares, b"a", 0.5)


def test_the_share_returns_when_the_other_is_gone(shares):
    assert ask(shares, b"b", 0.0)
    shares.of(b"b", "m", 0.0).leave("m", "ring")
    for _ in range(QUEUE // 2):
        assert ask(shares, b"a", 0.0)
    assert not ask(shares, b"a", 0.0)
    later = 2 * ACTIVE
    assert all(ask(shares, b"a", later) for _ in range(QUEUE))
    assert shares.clients == 1


def test_others_on_another_model_take_nothing_away(shares):
    assert ask(shares, b"b", 0.0, "other")
    assert all(ask(shares, b"a", 0.0) for _ in range(QUEUE))


def test_everybody_gets_at_least_one(shares):
    assert all(ask(shares, bytes([number]), 0.0) for number in range(3 * QUEUE))


def test_the_refusal_says_why(shares):
    ask(shares, b"b", 0.0)
    share = shares.of(b"a", "m", 0.0)
    share.pending["m"] = 4
    with pytest.raises(ResourceUnavailable, match=r"2 clients share the 8 places .*option queue_size.* has its 4"):
        shares.check(share, "m", QUEUE)


def test_nothing_is_kept_of_clients_that_left(shares):
    for number in range(1000):
        client = number.to_bytes(2, "big")
        ask(shares, client, 0.0)
        shares.of(client, "m", 0.0).leave("m", "ring")
    shares.of(b"last", "m", 5.0)
    assert shares.clients == 1


def test_poison_is_known_by_its_bytes():
    poison = KnownPoison()
    assert not poison
    poison.remember(PayloadKind.PICTURE, "a", b"xyz")
    assert poison.knows(PayloadKind.PICTURE, "b", memoryview(b"xyz"))  # the same decoder reads it
    assert not poison.knows(PayloadKind.PICTURE, "a", b"xyZ")
    assert not poison.knows(PayloadKind.TENSORS, "b", b"xyz")
    poison.remember(PayloadKind.TENSORS, "a", b"tensor")
    assert poison.knows(PayloadKind.TENSORS, "a", b"tensor")
    assert not poison.knows(PayloadKind.TENSORS, "b", b"tensor")


def test_the_oldest_poison_is_forgotten():
    poison = KnownPoison(most=2)
    for payload in (b"1", b"22", b"1", b"333"):
        poison.remember(PayloadKind.PICTURE, "", payload)
    assert len(poison) == 2
    assert poison.knows(PayloadKind.PICTURE, "", b"1")
    assert not poison.knows(PayloadKind.PICTURE, "", b"22")
    assert poison.knows(PayloadKind.PICTURE, "", b"333")
