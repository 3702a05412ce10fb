"""Frames, and what doors pass on, in slots that the server lent."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from parallel_infer import Client, protocol
from parallel_infer.client.endpoint import Address
from parallel_infer.doors.gateway_link import GatewayLink, Work
from parallel_infer.errors import BadInput, DeadlineExceeded, ServerUnavailable
from tests.client.client_calls import in_thread, payload_of


def frames_of(count, shape=(48, 64, 3)):
    return [np.full(shape, number, np.uint8) for number in range(count)]


def settle(client, server):
    """Send frames until the first that lies in a lent slot."""
    for frame in frames_of(50):
        assert payload_of(client.infer("echo", frame)) == frame.tobytes()
        if server.next().request.slot is not None:
            return
    pytest.fail("no frame was sent in a slot")


def test_frames_travel_in_lent_slots(lending):
    with Client(lending.address) as client:
        settle(client, lending)
        for frame in frames_of(10):
            assert payload_of(client.infer("echo", frame)) == frame.tobytes()
            received = lending.next()
            assert received.payload is None
            assert received.request.slot.size == frame.size
            assert (received.request.kind, received.request.tensors[0].shape) == ("frame", (48, 64, 3))
        assert len(lending.rings) == 1
        ring = next(iter(lending.rings))
        client.close()
        assert lending.next(protocol.GiveBack).request.ring == ring


def of_door(address, rounds):
    """What a door's link to the gateway is answered for rounds of payloads, those of each round under way at once."""

    async def ask():
        link = GatewayLink(Address(address, None), "http", 10.0)
        try:
            await link.reach()
            work = Work(model="echo")
            return [
                await asyncio.gather(*(link.job(work, "picture", (), [payload]) for payload in payloads))
                for payloads in rounds
            ]
        finally:
            link.close()

    return [[payload_of(answer) for answer in answers] for answers in asyncio.run(ask())]


def requests_of(server):
    return [server.received.get_nowait().request for _ in range(server.received.qsize())]


def test_doors_have_a_slot_for_each_request_that_is_under_way(lending):
    rounds = [[bytes([number]) * 20_000 for number in range(count)] for count in (1, 5, 16, 16, 16)]
    assert of_door(lending.address, rounds) == rounds
    jobs = [request for request in requests_of(lending) if isinstance(request, protocol.Infer)]
    assert all(request.slot is not None for request in jobs[-16:])


def test_doors_need_few_rings_for_payloads_of_many_sizes(lending):
    sizes = [20_000 + 500 * number for number in range(60)] + [20_000, 100_000] * 10
    rounds = [[b"x" * size] * 8 for size in sizes]
    assert of_door(lending.address, rounds) == rounds
    assert sum(isinstance(request, protocol.Lend) for request in requests_of(lending)) < 10


def test_other_payloads_never_do(lending):
    with Client(lending.address) as client:
        settle(client, lending)
        for picture in (b"encoded", np.zeros((4, 5), np.float32)):
            client.infer("echo", picture)
            assert lending.next().request.slot is None


def test_a_larger_frame_gets_a_larger_ring(lending):
    with Client(lending.address) as client:
        settle(client, lending)
        large = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
        for _ in range(5):
            assert payload_of(client.infer("echo", large)) == large.tobytes()
    received = [lending.received.get_nowait().request for _ in range(lending.received.qsize())]
    large_ones = [request for request in received if isinstance(request, protocol.Infer)]
    assert large_ones[-1].slot.size == large.size
    given_back = [request.ring for request in received if isinstance(request, protocol.GiveBack)]
    assert given_back[0] == 1


def test_refusal_is_not_asked_again(ipc_server):
    with Client(ipc_server.address) as client:
        for frame in frames_of(10):
            assert payload_of(client.infer("echo", frame)) == frame.tobytes()
    asked = [ipc_server.received.get_nowait().request for _ in range(ipc_server.received.qsize())]
    assert sum(isinstance(request, protocol.Lend) for request in asked) == 1


def test_tcp_never_asks(server, frame):
    if not server.address.startswith("tcp"):
        pytest.skip("the other kind of address")
    with Client(server.address) as client:
        client.infer("echo", frame)
        client.infer("echo", frame)
        with client.frame(4, 6) as held:
            held[:] = 7
            assert payload_of(client.infer("echo", held)) == b"\7" * 72
    asked = [server.received.get_nowait().request for _ in range(server.received.qsize())]
    assert not any(isinstance(request, protocol.Lend) for request in asked)


def test_unknown_ring_falls_back_to_bytes_and_asks_anew(lending, frame):
    with Client(lending.address) as client:
        settle(client, lending)
        lending.call(lending.forget_rings)
        assert payload_of(client.infer("echo", frame)) == frame.tobytes()
        assert lending.next().request.slot is not None
        assert lending.next().payload == frame.tobytes()
        settle(client, lending)
        assert set(lending.rings) == {2}


def test_restart_of_a_lending_server(lending, frame):
    with Client(lending.address) as client:
        settle(client, lending)
        join = in_thread(lambda: client.infer("held", frame, timeout=10))
        assert lending.next().request.slot is not None
        lending.restart()
        assert lending.next().payload == frame.tobytes()
        lending.release()
        assert payload_of(join()) == frame.tobytes()
        settle(client, lending)


def test_many_in_slots(lending):
    pictures = frames_of(200)
    with Client(lending.address) as client:
        answers = client.infer_many("echo", pictures, in_flight=16)
        assert [payload_of(answer) for answer in answers] == [picture.tobytes() for picture in pictures]
        received = [lending.next().request for _ in pictures]
    assert sum(request.slot is not None for request in received) > 100


def test_slots_in_flight_are_not_written(lending):
    """With every slot taken the rest travels as bytes; nobody gets another's pixels."""
    pictures = frames_of(40)
    with Client(lending.address) as client:
        settle(client, lending)
        futures = [client.submit("held", picture, timeout=10) for picture in pictures]
        for _ in futures:
            lending.next()
        lending.release()
        assert [payload_of(future.result(10)) for future in futures] == [picture.tobytes() for picture in pictures]


def test_slot_of_a_late_job_stays_fenced(lending):
    """Nothing is written into a slot that the server may still read."""
    with Client(lending.address) as client:
        settle(client, lending)
        late = np.full((48, 64, 3), 200, np.uint8)
        with pytest.raises(DeadlineExceeded):
            client.infer("held", late, timeout=0.05)
        slot = lending.next().request.slot
        for frame in frames_of(5):
            assert payload_of(client.infer("echo", frame)) == frame.tobytes()
            assert lending.next().request.slot.index != slot.index
        ring = lending.rings[slot.ring]
        assert (ring.arrays["bytes"][slot.index, : slot.size] == 200).all()
        lending.release()
        client.infer("echo", late)
        lending.next()
        client.infer_many("echo", [late, late], in_flight=2)
        assert slot.index in {lending.next().request.slot.index for _ in range(2)}


def test_ring_full_of_late_jobs_is_given_back(lending):
    with Client(lending.address) as client:
        settle(client, lending)
        for frame in frames_of(2):
            with pytest.raises(DeadlineExceeded):
                client.infer("silent", frame, timeout=0.05)
        settle(client, lending)
        assert max(lending.rings) == 2


def test_frame_is_sent_from_where_it_was_written(lending):
    with Client(lending.address) as client:
        with client.frame(48, 64) as frame:
            assert (frame.shape, frame.dtype, frame.flags.writeable) == ((48, 64, 3), np.uint8, True)
            slots = set()
            for value in (1, 2, 3):
                frame[:] = value
                assert payload_of(client.infer("echo", frame)) == bytes([value]) * frame.size
                slots.add(lending.next().request.slot)
            assert len(slots) == 1
            assert next(iter(slots)) is not None
        with client.frame(48, 64) as again:
            again[:] = 9
            assert payload_of(client.infer("echo", again)) == b"\x09" * again.size


def test_frame_that_is_submitted_is_copied(lending):
    with Client(lending.address) as client, client.frame(4, 4) as frame:
        frame[:] = 1
        future = client.submit("echo", frame)
        frame[:] = 2
        assert payload_of(future.result(10)) == b"\1" * 48


def test_frame_without_a_server(nobody):
    with Client(nobody, timeout=0.05) as client, client.frame(4, 4) as frame:
        frame[:] = 1
        with pytest.raises(ServerUnavailable):
            client.infer("echo", frame)


def test_frame_without_pixels(lending):
    with Client(lending.address) as client, pytest.raises(BadInput, match="no pixels"), client.frame(0, 4):
        pass
