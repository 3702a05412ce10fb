"""What is taken in one go, that nothing of the rest is lost, and that whoever sleeps hears of all of it."""

from __future__ import annotations

import os
import time

from parallel_infer.ipc.channel import DRAIN, AnswerInlet, AnswerLink, Hello, Link, Router, Watch, new_context
from parallel_infer.ipc.messages import Overdue, ToDispatcher


def test_a_router_takes_a_bounded_number_at_once_and_loses_none(tmp_path):
    context = new_context()
    router: Router[ToDispatcher] = Router(context, f"ipc://{tmp_path}/router", ToDispatcher)
    link: Link[object] = Link(context, f"ipc://{tmp_path}/router", "peer", ToDispatcher)
    count = 3 * DRAIN + 1
    for number in range(count):
        link.send(Overdue(number))
        link.flush()  # a frame each
    found: list[int] = []
    while len(found) < count:
        taken = [message for _, message in router.receive(30.0)]
        assert 0 < len(taken) <= DRAIN
        found += [message.job for message in taken if not isinstance(message, Hello)]
    assert found == list(range(count))
    assert list(router.receive(0)) == []
    link.close()
    router.close()
    context.term()


def _heard(watch: Watch, patience: float = 60.0) -> set[object]:
    until = time.monotonic() + patience
    there: set[object] = set()
    while not there and time.monotonic() < until:
        there = watch.wait(until - time.monotonic())
    return there


def test_of_a_socket_that_rarely_has_anything_one_hears_until_all_is_taken(tmp_path):
    context = new_context()
    inlets = [AnswerInlet(context, f"ipc://{tmp_path}/{name}", Overdue) for name in ("usual", "rare")]
    usual, rare = inlets
    links = [AnswerLink(context, f"ipc://{tmp_path}/{name}") for name in ("usual", "rare")]
    reading, writing = os.pipe()
    watch = Watch()
    watch.add(usual.socket)
    watch.add(rare.socket, rare=True)
    watch.add(reading, rare=True)

    def send(link: AnswerLink, count: int) -> None:
        for number in range(count):
            link.send(Overdue(number))
            link.flush()  # a frame each

    assert watch.wait(0) == set()
    for count in (1, 3 * DRAIN + 1, 2):  # more than is taken in one go, and again when nobody looks closely any more
        send(links[1], count)
        found: list[int] = []
        while len(found) < count:
            assert _heard(watch) == {rare.socket}
            found += [message.job for message, _ in rare.drain()]
        assert found == list(range(count))
        send(links[0], 1)
        assert _heard(watch) == {usual.socket}
        assert len(list(usual.drain())) == 1
    os.write(writing, b"x")
    assert [_heard(watch), _heard(watch)] == [{reading}, {reading}]  # nobody has taken it
    os.read(reading, 1)
    assert watch.wait(0) == set()
    for link in links:
        link.close()
    for inlet in inlets:
        inlet.close()
    context.term()
    os.close(reading)
    os.close(writing)
