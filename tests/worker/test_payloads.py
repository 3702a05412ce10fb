"""Which rings a decode worker keeps attached: those in use, whatever comes and goes beside them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest

import parallel_infer.worker.payloads
from parallel_infer.errors import BadInput
from parallel_infer.ipc.messages import SlotRef
from parallel_infer.shm.ring import Ring, byte_ring
from parallel_infer.shm.segment import Segment
from parallel_infer.worker.payloads import Payloads

SIZE = 4096


@pytest.fixture
def lend() -> Iterator[Callable[[], Ring]]:
    """Makes rings of one slot."""
    prefix, made = f"pinfer-test-{secrets.token_hex(4)}", []

    def one() -> Ring:
        made.append(Ring.create(byte_ring(f"{prefix}-{len(made)}", 1, SIZE)))
        made[-1].arrays["bytes"][0, :] = len(made) % 251
        return made[-1]

    yield one
    for ring in made:
        ring.close()
        ring.unlink()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The names that are attached, and those that are looked for."""
    names: dict[str, list[str]] = {"attached": [], "looked": []}
    attach, exists = Segment.attach, parallel_infer.worker.payloads.exists

    def attached(name: str) -> Segment:
        names["attached"].append(name)
        return attach(name)

    def looked(name: str) -> bool:
        names["looked"].append(name)
        return exists(name)

    monkeypatch.setattr(Segment, "attach", attached)
    monkeypatch.setattr(parallel_infer.worker.payloads, "exists", looked)
    return names


def place(ring: Ring) -> SlotRef:
    return SlotRef(ring.spec.segment, 0, 0, SIZE, SIZE)


def test_a_ring_in_use_stays_whatever_comes_and_goes(lend, seen):
    payloads, steady = Payloads(most=4), lend()
    for number in range(30):
        assert payloads.read(place(steady))[0] == 1
        assert payloads.read(place(lend()))[0] == (number + 2) % 251
    assert seen["attached"].count(steady.spec.segment) == 1


def test_a_new_ring_looks_at_a_few_others_only(lend, seen):
    payloads = Payloads()
    for _ in range(60):
        payloads.read(place(lend()))
    assert len(seen["looked"]) <= 120


def test_rings_that_are_gone_are_let_go_before_as_many_again_have_come(lend, monkeypatch):
    payloads, closed, close = Payloads(), [], Segment.close
    monkeypatch.setattr(Segment, "close", lambda segment: (closed.append(segment.name), close(segment)))
    gone = [lend() for _ in range(10)]
    for ring in gone:
        payloads.read(place(ring))
        ring.unlink()
    for _ in range(10):
        payloads.read(place(lend()))
    assert {ring.spec.segment for ring in gone} <= set(closed)
    with pytest.raises(BadInput, match="given back"):
        payloads.read(place(gone[0]))
