"""Answers that are given again: the same question is computed once, another one is, and nothing else is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from parallel_infer import Client, protocol
from parallel_infer.crops import Crop, CutOut
from parallel_infer.errors import BadInput
from parallel_infer.ipc.messages import Admit, Answered, ChainsServed, ModelClosed
from parallel_infer.observe.metrics import ServerMetrics
from parallel_infer.shm.ring import Ring, byte_ring
from tests.engine.graphs import WIDE
from tests.engine.serving import Server
from tests.gateway.core_rig import SMALL, TIMES, Request, Rig

CONFIG = """
bind = ["ipc://{folder}/door"]
response_cache_mb = 1
[models.pair]
path = "{models}/pair.onnx"
instances = 1
"""
ROOM = 4 * 2048  # bytes of answers: two or three small ones


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig(cache=ROOM)
    yield made
    made.check_drained()
    made.close()


def computed(rig: Rig, payload: bytes | None = b"picture", answer: bytes = b"answer", **fields: Any) -> Request:
    """A request that no kept answer serves."""
    request = rig.infer(payload=payload, **fields)
    assert not request.replies, "answered without being computed"
    rig.answer(rig.admitted().job, answer)
    return request


def kept(rig: Rig, client: bytes = b"a", payload: bytes | None = b"picture", **fields: Any) -> Request:
    """A request that is answered at once."""
    request = rig.infer(client, payload, **fields)
    assert rig.told(Admit) == []
    return request


def test_the_same_question_is_computed_once_for_all_clients(rig: Rig) -> None:
    computed(rig)
    assert kept(rig).answers == [b"answer"]
    assert kept(rig, b"b", priority=5, timeout=3.0, source="door").answers == [b"answer"]
    tally = rig.core.own_status()["models"]["m"]
    assert (tally["cache_hits"], tally["cache_misses"], tally["ends"]["answered"]) == (2, 1, 3)


@pytest.mark.parametrize(
    "other",
    [
        {"payload": b"picturf"},
        {"options": msgspec.Raw(msgspec.msgpack.encode({"confidence": 0.5}))},
        {"format": "objects"},
        {"kind": "tensors", "tensors": (protocol.Tensor("x", "uint8", (7,)),)},
        {"model": "n"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_question_is_computed(rig: Rig, other: dict[str, Any]) -> None:
    rig.open_model("n")
    computed(rig)
    computed(rig, **other)


def test_what_is_asked_while_it_is_computed_is_computed_too(rig: Rig) -> None:
    first, second = rig.infer(), rig.infer()
    for admit in rig.told(Admit):
        rig.answer(admit.job)
    assert (first.replies, second.replies) == (1, 1)
    assert rig.core.own_status()["response_cache"]["answers"] == 1


@pytest.mark.parametrize("code", ["BAD_INPUT", "RESOURCE_UNAVAILABLE", "DEADLINE_EXCEEDED"])
def test_no_error_is_kept(rig: Rig, code: str) -> None:
    refused = rig.infer()
    rig.refuse(rig.admitted().job, code)
    assert refused.code == code
    computed(rig)


def test_an_answer_that_came_too_late_is_not_kept(rig: Rig) -> None:
    late = rig.infer(timeout=1.0)
    job = rig.admitted().job
    rig.pass_time(2.0)
    rig.answer(job)
    assert late.code == "DEADLINE_EXCEEDED"
    computed(rig)


def test_a_model_that_is_loaded_anew_has_no_answers(rig: Rig) -> None:
    computed(rig)
    rig.open_model("m")
    computed(rig)
    rig.take(ModelClosed("m"))
    assert rig.core.own_status()["response_cache"]["answers"] == 0
    assert rig.infer().code == "UNKNOWN_MODEL"


def test_an_answer_of_the_model_before_is_not_kept_for_the_next(rig: Rig) -> None:
    rig.infer()
    job = rig.admitted().job
    rig.open_model("m")
    rig.answer(job, b"of the old one")
    computed(rig, answer=b"of the new one")
    assert kept(rig).answers == [b"of the new one"]


def test_the_answers_not_used_for_longest_make_room(rig: Rig) -> None:
    for name in (b"1", b"2", b"3"):
        computed(rig, name, bytes(1000))
        kept(rig, payload=b"1")
    status = rig.core.own_status()["response_cache"]
    assert status["limit"] == ROOM
    assert status["used"] <= ROOM
    assert status["answers"] == 3
    computed(rig, b"4", bytes(5000))
    assert rig.core.own_status()["response_cache"]["evicted"] == 2
    assert rig.core.own_status()["response_cache"]["used"] <= ROOM
    kept(rig, payload=b"1")
    computed(rig, b"2")


def test_an_answer_that_is_larger_than_all_the_room_is_not_kept(rig: Rig) -> None:
    computed(rig, answer=bytes(ROOM))
    assert rig.core.own_status()["response_cache"] == {"limit": ROOM, "used": 0, "answers": 0, "evicted": 0}
    computed(rig)


def test_a_kept_answer_says_that_nothing_was_computed(rig: Rig) -> None:
    request = rig.infer()
    job = rig.admitted().job
    rig.take(Answered(job, b"\x80", b"", 1, (0.25,) * len(TIMES), 4), [b"answer"])
    assert request.batches == [4]
    again = kept(rig)
    assert again.batches == [0]
    assert {again.timings[0][part] for part in TIMES} == {0.0}


def test_without_room_no_payload_is_looked_at() -> None:
    rig = Rig()
    computed(rig)
    computed(rig)
    assert rig.core.own_status()["models"]["m"]["cache_misses"] == 0
    rig.close()


# --- a whole server ---------------------------------------------------------------------------------------------------


def test_a_server_computes_once_and_counts_it(start_server: Callable[..., Server]) -> None:
    server = start_server(toml=CONFIG)
    ones = {"a": np.ones(WIDE, np.float32), "b": np.ones(WIDE, np.float32)}
    with server.client() as client:
        first = client.infer("pair", ones)
        second = client.infer("pair", ones)
        for name, array in first.tensors.items():
            np.testing.assert_array_equal(second.tensors[name], array)
        assert (first.batch_size, second.batch_size, second.timing["infer"]) == (1, 0, 0.0)
        with pytest.raises(BadInput):
            client.infer("pair", b"no tensors")
        with pytest.raises(BadInput):
            client.infer("pair", b"no tensors")
        status = client.status()
        tally = status["gateway"]["models"]["pair"]
        assert (tally["cache_hits"], tally["cache_misses"], status["models"]["pair"]["batched_rows"]) == (1, 3, 1)
        assert status["gateway"]["response_cache"]["answers"] == 1
        page = generate_latest(registry_of(client)).decode()
        assert 'parallel_infer_cache_hits_total{model="pair"} 1.0' in page
        assert 'parallel_infer_cache_misses_total{model="pair"} 3.0' in page
        assert f"parallel_infer_response_cache_bytes {float(status['gateway']['response_cache']['used'])}" in page


def registry_of(client: Client) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(ServerMetrics(client.status))
    return registry


# --- payloads in lent slots -------------------------------------------------------------------------------------------


@pytest.fixture
def lent(rig: Rig) -> Iterator[tuple[int, memoryview]]:
    """The number of a lent ring of one slot, and the slot's bytes as its client sees them."""
    (told,) = rig.ask(protocol.Lend, slots=1, size=SMALL).results
    ring = Ring.attach(byte_ring(told["segment"], 1, SMALL))
    yield told["ring"], memoryview(ring.arrays["bytes"].data).cast("B")
    ring.close()


def test_a_lent_payload_counts_by_what_it_holds(rig: Rig, lent: tuple[int, memoryview]) -> None:
    number, data = lent
    data[:7] = b"picture"
    slot = protocol.LentSlot(number, 0, 7)
    computed(rig, None, slot=slot)
    assert kept(rig, payload=None, slot=slot).answers == [b"answer"]
    assert kept(rig, b"b", b"picture").answers == [b"answer"]
    data[:7] = b"another"
    computed(rig, None, slot=slot)


def test_who_changes_a_lent_payload_on_the_way_spoils_no_answer(rig: Rig, lent: tuple[int, memoryview]) -> None:
    number, data = lent
    data[:7] = b"picture"
    rig.infer(payload=None, slot=protocol.LentSlot(number, 0, 7))
    data[:7] = b"changed"
    admit = rig.admitted()
    stored = rig.ingress.read(admit.ref)
    assert stored is not None, "its client can still change it"
    assert bytes(stored) == b"picture"
    rig.answer(admit.job)


def test_without_a_free_slot_a_lent_payload_is_computed_and_not_kept(rig: Rig, lent: tuple[int, memoryview]) -> None:
    number, data = lent
    data[:7] = b"picture"
    others = [rig.infer(payload=bytes([one])) for one in range(6)]  # all slots there are
    jobs = rig.told(Admit)
    slot = protocol.LentSlot(number, 0, 7)
    computed(rig, None, slot=slot)
    for admit in jobs:
        rig.answer(admit.job)
    assert [other.replies for other in others] == [1] * 6
    computed(rig, None, slot=slot)


# --- fans and chains --------------------------------------------------------------------------------------------------


@pytest.fixture
def chains() -> Iterator[Rig]:
    made = Rig(cache=ROOM)
    for name, task in (("finder", "detect"), ("reader", "text"), ("other", "text")):
        made.open_model(name, task=task, preprocess={"input": "x"})
    made.take(ChainsServed({"plates": "finder > reader"}))
    yield made
    made.check_drained()
    made.close()


def work(rig: Rig, fails: str = "") -> int:
    """Workers answer all jobs and find an object each; those of one model fail. How many jobs there were."""
    count = 0
    while admits := rig.told(Admit):
        for admit in admits:
            count += 1
            if admit.model == fails:
                rig.refuse(admit.job)
                continue
            crops = (CutOut(0, 0, Crop(0, 0, 1, 1, 9, 9)),) if admit.part and admit.part.selections else ()
            body = msgspec.msgpack.encode(protocol.AnswerBody(task="detect", model=admit.model))
            rig.take(Answered(admit.job, body, b"", 0, (0.0,) * len(TIMES), 1, crops))
    return count


@pytest.mark.parametrize("name", ["plates", "finder+reader", "plates+other"])
def test_answers_of_fans_and_chains_are_kept(chains: Rig, name: str) -> None:
    first = chains.infer(model=name)
    assert (work(chains), first.replies) == (3 if "plates+" in name else 2, 1)
    again = kept(chains, b"b", model=name)
    assert again.bodies == first.bodies
    tally = chains.core.own_status()["models"]
    counted = ["finder", name.partition("+")[2]] if "+" in name else ["plates"]
    assert [tally[model]["cache_hits"] for model in counted] == [1] * len(counted)
    assert name == "plates" or name not in tally  # names of fans are without number
    chains.infer(model=name, options=msgspec.Raw(b"\x81\xa1x\x01"))
    assert work(chains) > 0


@pytest.mark.parametrize("change", ["finder", "reader", "the chain"])
def test_a_chain_that_is_another_one_is_computed(chains: Rig, change: str) -> None:
    chains.infer(model="plates")
    work(chains)
    if change == "the chain":
        chains.take(ChainsServed({"plates": "finder > other"}))
    else:
        chains.open_model(change, task="detect" if change == "finder" else "text", preprocess={"input": "x"})
        assert chains.core.own_status()["response_cache"]["answers"] == 0
    chains.infer(model="plates")
    assert work(chains) == 2


@pytest.mark.parametrize("name", ["plates", "finder+reader"])
def test_an_answer_with_an_error_in_it_is_not_kept(chains: Rig, name: str) -> None:
    assert chains.infer(model=name).replies == 0
    work(chains, fails="reader")
    assert chains.core.own_status()["response_cache"]["answers"] == 0
    chains.infer(model=name)
    assert work(chains) == 2
    kept(chains, model=name)
