"""Which requests have waited long enough: `Waiting` without sockets and clocks."""

from __future__ import annotations

import gc
import itertools

import pytest

from parallel_infer import protocol
from parallel_infer.client.pending import Pending
from parallel_infer.client.waiting import GRACE, Waiting
from parallel_infer.deadlines import RESOLUTION

_numbers = itertools.count(1)


class Looked(Pending):
    """A request that knows how often somebody looked at its deadline."""

    def __init__(self, deadline, *, sent=True):
        self.looks = 0
        super().__init__(protocol.Infer(id=next(_numbers), model="m"), 1.0)
        self.deadline = deadline
        self.sent = sent

    @property
    def deadline(self):
        self.looks += 1
        return self._deadline

    @deadline.setter
    def deadline(self, value):
        self._deadline = value


def waiting_for(*requests):
    waiting = Waiting()
    for request in requests:
        waiting.add(request)
    return waiting


def fail(waiting, now):
    late = waiting.overdue(now)
    for pending in late:
        assert waiting.pop(pending.request.id) is pending
    return late


@pytest.mark.parametrize(("sent", "limit"), [(False, 10.0), (True, 10.0 + GRACE)])
def test_what_was_sent_has_some_grace(sent, limit):
    request = Looked(10.0, sent=sent)
    waiting = waiting_for(request)
    assert not fail(waiting, 9.9)
    assert not fail(waiting, limit - 0.001)
    assert fail(waiting, limit + RESOLUTION) == [request]
    assert not waiting
    assert not fail(waiting, 1000.0)


def test_what_has_its_reply_is_never_late():
    first, second = Looked(10.0), Looked(10.0)
    waiting = waiting_for(first, second)
    assert waiting.pop(first.request.id) is first
    assert waiting.pop(first.request.id) is None
    assert first not in waiting
    assert not fail(waiting, 10.0 + RESOLUTION)  # the grace begins, and the second is answered within it
    assert waiting.pop(second.request.id) is second
    assert not fail(waiting, 1000.0)


@pytest.mark.parametrize("watched", [False, True])
def test_a_limit_set_later_counts(watched):
    request = Looked(100.0, sent=False)
    request.timeout = 100.0
    waiting = waiting_for(request)
    if watched:
        waiting.overdue(1.0)
    waiting.limit(request, 5.0)
    assert not fail(waiting, 4.9)
    assert fail(waiting, 5.0 + RESOLUTION) == [request]


def test_a_limit_of_what_waits_no_more_does_nothing():
    request = Looked(100.0)
    waiting = waiting_for(request)
    waiting.pop(request.request.id)
    waiting.limit(request, 5.0)
    assert not waiting
    assert not waiting.overdue(1000.0)


def test_what_is_due_and_was_not_failed_is_named_again():
    """Whoever fails them may be interrupted by Ctrl-C in the middle."""
    requests = [Looked(10.0, sent=False) for _ in range(3)]
    waiting = waiting_for(*requests)
    assert waiting.overdue(11.0) == requests
    waiting.pop(requests[0].request.id)
    assert waiting.overdue(12.0) == requests[1:]


def test_only_what_is_due_is_looked_at():
    due = [Looked(10.0, sent=False) for _ in range(3)]
    others = [Looked(20.0 + n) for n in range(1000)]
    waiting = waiting_for(*others, *due)
    waiting.overdue(1.0)
    before = sum(other.looks for other in others)
    for step in range(100):
        waiting.overdue(5.0 + 0.01 * step)
    assert fail(waiting, 10.0 + RESOLUTION) == due
    assert sum(other.looks for other in others) == before
    assert list(waiting.all()) == others


def test_what_is_answered_before_anybody_asks_is_not_looked_at():
    first, second = Looked(10.0), Looked(20.0, sent=False)
    before = first.looks
    waiting = waiting_for(first)
    waiting.pop(first.request.id)
    waiting.add(second)
    assert not waiting.overdue(19.0)
    assert first.looks == before
    assert fail(waiting, 20.0 + RESOLUTION) == [second]


def test_a_request_may_be_added_again_once_it_was_answered():
    request, other = Looked(10.0, sent=False), Looked(11.0, sent=False)
    waiting = waiting_for(request, other)
    waiting.overdue(1.0)
    waiting.pop(request.request.id)
    waiting.add(request)
    assert fail(waiting, 10.0 + RESOLUTION) == [request]
    assert fail(waiting, 11.0 + RESOLUTION) == [other]


def test_nothing_is_kept_of_what_was_answered():
    waiting = Waiting()
    for n in range(1000):
        request = Looked(3600.0 + n)
        waiting.add(request)
        waiting.overdue(0.001 * n)
        waiting.pop(request.request.id)
    del request
    waiting.overdue(1.0)
    gc.collect()
    assert not [found for found in gc.get_objects() if isinstance(found, Looked)]
