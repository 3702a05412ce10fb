"""What a Router takes in one go, and that nothing of the rest is lost."""

from __future__ import annotations

from parallel_infer.ipc.channel import DRAIN, Hello, Link, Router, new_context
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
