"""What is sent again after a connection was lost, and who is held to have cut it: `Outbox` without sockets."""

from __future__ import annotations

import itertools

import pytest

from parallel_infer import protocol
from parallel_infer.client.outbox import Outbox
from parallel_infer.client.pending import Pending


class Wire:
    """A connection that some requests cut when they are sent; the others are answered when told."""

    def __init__(self, sizes, *, cutting=()):
        self.now = 0.0
        self.outbox = Outbox()
        self.waiting = [Pending(protocol.Infer(id=n, model="m"), 60, bytes(size)) for n, size in enumerate(sizes)]
        self.cutting = {self.waiting[n] for n in cutting}
        self.sent = [0] * len(sizes)
        self.failed = []
        self.answered = []
        for pending in self.waiting:
            self.outbox.append(pending)

    def send_all(self):
        """Hand out what may be sent now; whether one of it cut the connection."""
        cut = False
        while (pending := self.outbox.next(self.now)) is not None:
            pending.sent = pending.under_way = True
            self.outbox.taken(pending)
            self.sent[pending.request.id] += 1
            cut = cut or pending in self.cutting
        return cut

    def answer(self):
        for pending in [pending for pending in self.waiting if pending.under_way]:
            self.waiting.remove(pending)
            self.answered.append(pending.request.id)
            self.outbox.answered(pending)

    def lose(self):
        self.drop(self.outbox.cut(self.waiting, self.now))

    def drop(self, given_up):
        for pending in given_up:
            self.waiting.remove(pending)
            self.failed.append(pending.request.id)

    def run(self):
        for _ in itertools.takewhile(lambda _: self.waiting, range(1000)):
            if self.send_all():
                self.lose()
            else:
                self.answer()
            self.now += 0.01
        return self


def test_what_was_under_way_goes_out_again_at_once():
    wire = Wire([1, 2, 3])
    wire.send_all()
    wire.lose()
    wire.send_all()
    assert wire.sent == [2, 2, 2]


@pytest.mark.parametrize("culprit", [0, 5, 16])
@pytest.mark.parametrize("sizes", [[10] * 17, list(range(17)), [10] * 16 + [99]])
def test_who_cuts_the_connection_fails_alone(sizes, culprit):
    wire = Wire(sizes, cutting=[culprit]).run()
    assert wire.failed == [culprit]
    assert sorted(wire.answered) == [n for n in range(17) if n != culprit]
    assert max(wire.sent) <= 8
    assert sum(wire.sent) <= 5 * 17


def test_the_largest_is_looked_at_first():
    wire = Wire([10] * 16 + [1000], cutting=[16]).run()
    assert wire.failed == [16]
    assert wire.sent == [3] * 16 + [5]  # twice together, and the others once more when it was found


@pytest.mark.parametrize("cutting", [(0, 1), (3, 9)])
def test_several_that_cut(cutting):
    wire = Wire([10] * 17, cutting=cutting).run()
    assert sorted(wire.failed) == list(cutting)
    assert len(wire.answered) == 17 - len(cutting)
    assert max(wire.sent) <= 12


def test_pauses_grow():
    wire = Wire([10], cutting=[0])
    times = []
    while wire.waiting:
        if wire.send_all():
            times.append(wire.now)
            wire.lose()
        wire.now += 0.001
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses[-1] > pauses[-2] >= 0.05
    assert len(times) == 5


def test_nobody_is_to_blame_where_the_server_was_away():
    """It goes away while everything is under way, and again; then all is sent at once, and nothing one at a time."""
    wire = Wire([1] * 5)
    for _ in range(10):
        wire.send_all()
        wire.drop(wire.outbox.lost(wire.waiting))
    wire.send_all()
    assert wire.sent == [11] * 5
    wire.answer()
    assert wire.failed == []


def test_a_server_that_never_stays_is_given_up():
    wire = Wire([1] * 5)
    while wire.waiting:
        wire.send_all()
        wire.drop(wire.outbox.lost(wire.waiting))
    assert wire.sent == [20] * 5


def test_where_everything_is_cut_everything_is_given_up():
    wire = Wire([1] * 5, cutting=range(5)).run()
    assert sorted(wire.failed) == list(range(5))
    assert max(wire.sent) <= 20


def test_new_ones_are_not_blamed_for_a_suspect():
    wire = Wire([5, 5], cutting=[0])
    for _ in range(2):
        wire.send_all()
        wire.lose()
    new = Pending(protocol.Infer(id=2, model="m"), 60, b"x")
    wire.waiting.append(new)
    wire.sent.append(0)
    wire.outbox.append(new)
    wire.send_all()  # a suspect, and the new one
    wire.lose()
    assert new.suspicion == 0
    assert wire.run().failed == [0]
    assert sorted(wire.answered) == [1, 2]


def test_what_nobody_waits_for_any_more_leaves():
    wire = Wire([1])
    pending = wire.waiting.pop()
    assert wire.outbox.next(0.0) is pending
    wire.outbox.taken(pending)
    assert not wire.outbox
    assert wire.outbox.cut([], 0.0) == wire.outbox.lost([]) == []
