"""Many pictures at a time: `submit`, `infer_many` and `stream`."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import Future

import pytest

from parallel_infer import Client, JobStatus, protocol
from parallel_infer.errors import BadInput, Dropped, ResourceUnavailable, ServerUnavailable, Unanswered, UnknownModel
from tests.client.client_calls import in_thread, payload_of


def numbered(count):
    return [b"%d" % number for number in range(count)]


def test_submit(server):
    with Client(server.address) as client:
        futures = [client.submit("echo", picture) for picture in numbered(100)]
        assert [payload_of(future.result(10)) for future in futures] == numbered(100)
        assert {future.wait(0) for future in futures} == {JobStatus.DONE}


def test_submit_tells_where_it_stands(server):
    with Client(server.address) as client:
        future = client.submit("held", b"x")
        assert future.wait(0.01) is JobStatus.PENDING
        server.next()
        server.release()
        assert future.wait(10) is JobStatus.DONE
        assert future.wait() is JobStatus.DONE


def test_submit_has_its_error(server):
    with Client(server.address) as client:
        assert isinstance(client.submit("fail:UNKNOWN_MODEL", b"x").exception(10), UnknownModel)
        assert isinstance(client.submit("silent", b"x", timeout=0.05).exception(10), Unanswered)
        failed = client.submit("echo", None)
        assert failed.wait(0) is JobStatus.DONE
        assert isinstance(failed.exception(), BadInput)


def test_submit_calls_back(server):
    done = threading.Event()
    seen = []
    with Client(server.address) as client:
        future = client.submit("echo", b"x", callback=lambda future: (seen.append(future), done.set()))
        assert done.wait(10)
    assert seen == [future]


def test_callback_may_submit(server):
    results = []
    done = threading.Event()

    def again(future):
        results.append(payload_of(future.result()))
        if len(results) < 5:
            client.submit("echo", b"%d" % len(results), callback=again)
        else:
            done.set()

    with Client(server.address) as client:
        client.submit("echo", b"0", callback=again)
        assert done.wait(10)
    assert results == numbered(5)


def called_back(client, ask):
    """What `ask` gives in a callback of the client, or raises there."""
    outcome = Future()

    def answered(future):
        try:
            outcome.set_result(ask(future))
        except Exception as error:
            outcome.set_exception(error)

    client.submit("echo", b"x", callback=answered)
    return outcome.result(10)


def test_a_callback_may_make_changes_and_ask_on(server):
    with Client(server.address) as client:
        assert called_back(client, lambda future: client.unload("detector"))["name"] == "detector"
        assert payload_of(called_back(client, lambda future: client.infer("echo", b"y"))) == b"y"
        assert payload_of(called_back(client, lambda future: future.result())) == b"x"
        assert called_back(client, lambda future: client.submit("silent", b"y").wait(0)) is JobStatus.PENDING


@pytest.mark.parametrize(
    "wait",
    [
        lambda client: client.submit("held", b"y").result(),
        lambda client: client.submit("held", b"y").exception(3600),
        lambda client: client.submit("held", b"y").wait(),
        lambda client: list(client.stream("echo", [b"y"])),
    ],
    ids=["result", "exception", "wait", "stream"],
)
def test_a_callback_that_would_wait_for_ever_is_told(server, wait):
    with Client(server.address) as client:
        with pytest.raises(BadInput, match="a callback cannot"):
            called_back(client, lambda future: wait(client))
        assert payload_of(client.submit("echo", b"z").result(10)) == b"z"


def test_a_callback_may_close_the_client(server, nobody):
    for address in (server.address, nobody):
        client, closed = Client(address, timeout=0.2), threading.Event()
        client.submit(
            "echo", b"x", callback=lambda future, client=client, closed=closed: (client.close(), closed.set())
        )
        assert closed.wait(10)
        while any(thread.name == "parallel-infer-client" for thread in threading.enumerate()):
            threading.Event().wait(0.01)


def test_cancel_asks_the_server_to_forget(server):
    with Client(server.address) as client:
        future = client.submit("held", b"x")
        job = server.next().request.id
        assert future.cancel()
        assert future.cancel()
        assert future.wait(0) is JobStatus.DONE
        assert server.next(protocol.Cancel).request.job == job
        server.release()
        answered = client.submit("echo", b"y")
        assert payload_of(answered.result(10)) == b"y"
        assert not answered.cancel()


def test_close_fails_what_is_on_its_way(server):
    client = Client(server.address)
    future = client.submit("silent", b"x")
    server.next()
    client.close()
    assert isinstance(future.exception(10), ServerUnavailable)


def test_submit_survives_a_restart(server):
    with Client(server.address) as client:
        futures = [client.submit("held", picture, timeout=10) for picture in numbered(20)]
        for _ in futures:
            server.next()
        server.restart()
        for _ in futures:
            server.next()
        server.release()
        assert [payload_of(future.result(10)) for future in futures] == numbered(20)


def test_many_keep_their_order(server):
    with Client(server.address) as client:
        answers = client.infer_many("echo", iter(numbered(300)))
        assert [payload_of(answer) for answer in answers] == numbered(300)
        assert client.infer_many("echo", []) == []


def test_many_are_pulled_as_they_go(server):
    pulled = itertools.count()
    source = ((next(pulled) and b"x") or b"x" for _ in range(50))
    with Client(server.address) as client:
        join = in_thread(lambda: client.infer_many("held", source, in_flight=8))
        for _ in range(8):
            server.next()
        server.release(1)
        server.next()
        assert next(pulled) == 9
        server.call(lambda: setattr(server, "infer", server.echo))
        server.release()
        assert len(join()) == 51 - 1
    assert server.most_held == 8


def test_many_back_off_from_a_full_server(server):
    server.room = 3
    with Client(server.address) as client:
        answers = client.infer_many("full", numbered(60), in_flight=32)
    assert [payload_of(answer) for answer in answers] == numbered(60)
    assert server.most_held == 3
    assert server.count > 60  # some were refused, and sent again


def test_many_give_up_on_a_server_that_stays_full(server):
    server.room = 0
    with Client(server.address) as client:
        answers = client.infer_many("full", numbered(3), timeout=0.1, errors="return")
    assert [type(answer) for answer in answers] == [ResourceUnavailable] * 3


def test_many_errors(server, tmp_path):
    pictures = [b"a", tmp_path / "missing.jpg", b"c"]
    with Client(server.address) as client:
        answers = client.infer_many("echo", pictures, errors="return")
        assert [payload_of(answers[0]), type(answers[1]), payload_of(answers[2])] == [b"a", BadInput, b"c"]
        with pytest.raises(BadInput, match="missing"):
            client.infer_many("echo", pictures)
        assert server.count == 4  # the others were done all the same
        found = client.infer_many("silent", [b"x", b"y"], timeout=0.05, errors="return")
        assert [type(error) for error in found] == [Unanswered] * 2


def test_many_survive_a_restart(server):
    with Client(server.address) as client:
        join = in_thread(lambda: client.infer_many("held", numbered(30), in_flight=30, timeout=10))
        for _ in range(30):
            server.next()
        server.release(10)
        server.restart()
        for _ in range(20):
            server.next()
        server.release()
        assert [payload_of(answer) for answer in join()] == numbered(30)


def test_many_from_a_source_that_fails(server):
    def source():
        yield b"x"
        raise OSError("the disk is gone")

    with Client(server.address) as client:
        assert client.ready()
        with pytest.raises(OSError, match="disk"):
            client.infer_many("held", source())
        job = server.next().request.id
        assert server.next(protocol.Cancel).request.job == job
        assert payload_of(client.infer("echo", b"y")) == b"y"


def test_calls_inside_a_source(server):
    with Client(server.address) as client:
        source = (payload_of(client.infer("echo", b"in%d" % number)) for number in range(5))
        answers = client.infer_many("echo", source)
    assert [payload_of(answer) for answer in answers] == [b"in%d" % number for number in range(5)]


def test_stream_keeps_order_and_slows_the_source_down(server):
    pulled = []

    def frames():
        for picture in numbered(40):
            pulled.append(picture)
            yield picture

    with Client(server.address) as client:
        for number, answer in client.stream("echo", frames(), source="door", in_flight=4):
            assert payload_of(answer) == b"%d" % number
            assert len(pulled) <= number + 4 + 2  # in flight, this one, and one pulled and waiting
    assert len(pulled) == 40
    request = server.next().request
    assert (request.source, request.drop) == ("door", "none")


def test_stream_of_latest_drops_what_waits(server):
    more = threading.Semaphore(0)

    def frames():
        for picture in numbered(10):
            yield picture
            if picture == b"8":
                more.acquire(timeout=10)

    with Client(server.address) as client:
        stream = client.stream("held", frames(), drop="latest", in_flight=2)
        join = in_thread(lambda: next(stream))
        assert [server.next().payload for _ in range(2)] == [b"0", b"1"]
        assert server.received.empty()
        server.release()
        assert join()[0] == 0
        server.next()  # the newest of those that waited
        server.infer = server.echo
        server.release()
        more.release()
        rest = dict(stream)
    assert sorted(rest) == list(range(1, 10))
    dropped = [number for number, outcome in rest.items() if isinstance(outcome, Dropped)]
    assert set(dropped) <= set(range(2, 9))
    assert len(dropped) >= 5
    assert payload_of(rest[9]) == b"9"


def test_stream_has_errors_in_place(server):
    with Client(server.address) as client:
        outcomes = dict(client.stream("echo", [b"a", None, b"c"]))
        assert [type(outcomes[number]).__name__ for number in range(3)] == ["Answer", "BadInput", "Answer"]
        outcomes = dict(client.stream("fail:DROPPED", [b"a"]))
        assert isinstance(outcomes[0], Dropped)


def test_stream_of_a_source_that_fails(server):
    def frames():
        yield b"x"
        raise OSError("the camera is gone")

    with Client(server.address) as client:
        stream = client.stream("echo", frames())
        assert payload_of(next(stream)[1]) == b"x"
        with pytest.raises(OSError, match="camera"):
            next(stream)


def test_stream_that_is_left_early(server):
    with Client(server.address) as client:
        stream = client.stream("held", itertools.repeat(b"x"), in_flight=3)
        join = in_thread(lambda: next(stream))
        for _ in range(3):
            server.next()
        server.release(1)
        join()
        stream.close()
        assert server.next(protocol.Cancel)
        assert client.ready()
