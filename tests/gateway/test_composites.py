"""Fans and chains in the gateway's core: one answer for each request, and its slot is free when nobody needs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.msgpack import decode, encode

from parallel_infer import protocol
from parallel_infer.answers.answer import Answer
from parallel_infer.crops import Crop, CutOut
from parallel_infer.errors import DeadlineExceeded, InferError, Poison
from parallel_infer.ipc.messages import (
    TIMES,
    Admit,
    AllCut,
    Answered,
    AnswersInDoubt,
    CancelJob,
    ChainsServed,
    ModelClosed,
    Overdue,
    Refused,
    SlotFate,
)
from parallel_infer.protocol import AnswerBody, Tensor
from tests.gateway.core_rig import TIMEOUT, Request, Rig

CROP = Crop(1.0, 2.0, 3.0, 4.0, 100, 50)
CHAINS = {"plates": "finder > reader", "both": "finder > reader(max_objects=2), plates", "deep": "finder > plates"}


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig(chains=CHAINS, max_crops=20)
    made.open_model("finder", task="detect", preprocess={"input": "x"}, options=("confidence",))
    made.open_model("reader", task="text", preprocess={"input": "x"}, options=("top",))
    yield made
    if made.core.leaving is None:
        made.check_drained()
    made.close()


class Client(Request):
    """A client that keeps its answers whole."""

    def __init__(self, rig: Rig, model: str, **fields: Any) -> None:
        super().__init__(b"c", len(rig.requests) + 1000)
        self.found: list[Answer] = []
        self.maps: list[Any] = []
        rig.requests.append(self)
        request = protocol.Infer(id=self.request, model=model, **fields)
        self._objects = request.format == "objects"
        rig.core.request(request, self, memoryview(b"picture"))
        rig.check()

    def answer(self, body: bytes, payload: Any, timing: dict[str, float], batch: int) -> int:
        if self._objects:
            self.maps.append(decode(body))
        else:
            header = protocol.Answer(id=self.request, answer=msgspec.Raw(body), timing=timing, batch=batch)
            self.found.append(Answer.from_wire(header, bytes(payload)))
        return super().answer(body, payload, timing, batch)


def reply(
    rig: Rig, admit: Admit, score: float = 0.5, objects: int = 0, crops: int | None = None, left_out: int = 0
) -> None:
    """A worker answers a job with so many objects; by each of its selections `crops` of them are cut out."""
    numbers = [score] * max(1, objects)
    tensor = Tensor("scores", "float64", (len(numbers),))
    body: Any = AnswerBody(task="detect", model=admit.model, width=100, height=50, arrays=(tensor,))
    payload = np.array(numbers).tobytes()
    if admit.format:
        body, payload = {"predictions": [{"confidence": number} for number in numbers]}, b""
    steps = range(len(admit.part.selections) if admit.part else 0)
    cut = tuple(CutOut(step, index, CROP) for step in steps for index in range(objects if crops is None else crops))
    rig.take(
        Answered(admit.job, encode(body), b"", 1, (0.0,) * len(TIMES), 1, cut, (left_out,) * len(steps)), [payload]
    )


def scores(parts: dict[str, Answer | InferError]) -> dict[str, Any]:
    """The first score of each part, or the code of its error."""
    return {
        name: found.code if isinstance(found, InferError) else found.arrays["scores"][0]
        for name, found in parts.items()
    }


# --- fans -------------------------------------------------------------------------------------------------------------


def test_a_fan_is_a_job_of_each_model_about_one_payload_and_one_answer(rig: Rig) -> None:
    client = Client(rig, "finder+reader")
    finder, reader = rig.told(Admit)
    assert (finder.model, reader.model, finder.ref) == ("finder", "reader", reader.ref)
    assert finder.part is not None
    assert reader.part is not None
    assert finder.part.picture == reader.part.picture
    reply(rig, reader, 0.25)
    assert (client.replies, rig.core.own_status()["ingress"][0]["free"]) == (0, 3)
    reply(rig, finder, 0.75)
    assert scores(client.found[0].parts) == {"finder": 0.75, "reader": 0.25}
    reply(rig, finder)  # once more: nobody minds


def test_the_times_of_a_fan_are_those_of_its_longest_part(rig: Rig) -> None:
    client = Client(rig, "finder+reader")
    finder, reader = rig.told(Admit)
    for admit, times in ((finder, (0.5, 0.0, 0.0, 0.25, 0.0, 0.0)), (reader, (0.0, 0.25, 0.0, 1.5, 0.0, 0.0))):
        rig.now += 1.0
        body = encode(AnswerBody(task="detect", model="m"))
        rig.take(Answered(admit.job, body, b"", 0, times, 1))
    timing = client.timings[0]
    assert (timing["queue"], timing["decode"], timing["infer"], timing["total"]) == (0.0, 0.25, 1.5, 2.0)


def test_a_part_that_fails_is_an_error_in_its_place(rig: Rig) -> None:
    client = Client(rig, "finder+reader", format="objects")
    finder, reader = rig.told(Admit)
    rig.refuse(reader.job)
    reply(rig, finder)
    parts = client.maps[0]["parts"]
    assert parts["reader"] == {"error": {"code": "BAD_INPUT", "message": "for a reason"}}
    assert parts["finder"] == {"predictions": [{"confidence": 0.5}]}


def test_a_fan_of_errors_is_an_error(rig: Rig) -> None:
    client = Client(rig, "finder+reader")
    for admit in rig.told(Admit):
        rig.refuse(admit.job)
    assert (client.code, client.errors[0].message) == ("BAD_INPUT", "finder: for a reason; reader: for a reason")


@pytest.mark.parametrize("code", ["RESOURCE_UNAVAILABLE", "DROPPED", "SERVER_UNAVAILABLE"])
def test_a_fan_that_finds_no_room_is_refused_as_a_whole(rig: Rig, code: str) -> None:
    client = Client(rig, "finder+reader")
    finder, reader = rig.told(Admit)
    rig.refuse(finder.job, code)
    assert client.code == code
    assert [message.job for message in rig.told(CancelJob)] == [reader.job]
    reply(rig, reader)


def test_at_the_deadline_a_fan_is_answered_with_what_there_is(rig: Rig) -> None:
    client = Client(rig, "finder+reader", timeout=1.0)
    finder, reader = rig.told(Admit)
    reply(rig, finder, 0.75)
    rig.pass_time(2.0)
    assert scores(client.found[0].parts) == {"finder": 0.75, "reader": DeadlineExceeded.code}
    assert [message.job for message in rig.told(Overdue)] == [reader.job]
    assert rig.core.own_status()["held"] == 1  # a worker may still read it
    rig.release(reader.job)


def test_a_fan_without_any_answer_at_its_deadline_is_an_error(rig: Rig) -> None:
    client = Client(rig, "finder+reader", timeout=1.0)
    jobs = [admit.job for admit in rig.told(Admit)]
    rig.pass_time(2.0)
    assert client.code == DeadlineExceeded.code
    for job in jobs:
        rig.release(job)


def test_options_go_to_the_models_that_know_them(rig: Rig) -> None:
    Client(rig, "finder+reader", options=msgspec.Raw(encode({"confidence": 0.5, "top": 3})))
    finder, reader = rig.told(Admit)
    assert (decode(finder.options), decode(reader.options)) == ({"confidence": 0.5}, {"top": 3})
    for admit in (finder, reader):
        reply(rig, admit)
    assert Client(rig, "finder+reader", options=msgspec.Raw(encode({"tup": 3}))).code == "BAD_INPUT"


def test_a_known_poison_fails_its_part_alone(rig: Rig) -> None:
    frame = {"kind": "frame", "tensors": (Tensor("", "uint8", (7,)),)}
    first = Client(rig, "finder+reader", **frame)
    finder, reader = rig.told(Admit)
    rig.refuse(finder.job, Poison.code)
    reply(rig, reader)
    second = Client(rig, "finder+reader", **frame)
    (reader,) = rig.told(Admit)
    reply(rig, reader)
    assert [scores(client.found[0].parts)["finder"] for client in (first, second)] == ["POISON"] * 2


def test_live_frames_are_replaced_model_by_model(rig: Rig) -> None:
    client = Client(rig, "finder+reader", source="door", drop="latest")
    finder, reader = rig.told(Admit)
    assert finder.source
    assert finder.source != reader.source
    rig.refuse(finder.job, "DROPPED")
    assert client.code == "DROPPED"
    rig.refuse(reader.job, "DROPPED")
    assert rig.core.own_status()["sources"]["door"]["dropped"] == 1


@pytest.mark.parametrize(
    ("model", "code", "why"),
    [
        ("finder+nothing", "UNKNOWN_MODEL", "no model 'nothing' is served; served are: both, deep, finder"),
        ("finder+finder", "BAD_INPUT", "names a model twice"),
    ],
)
def test_what_no_fan_can_be_is_refused_at_once(rig: Rig, model: str, code: str, why: str) -> None:
    client = Client(rig, model)
    assert client.code == code
    assert why in client.errors[0].message
    assert rig.told(Admit) == []


# --- chains -----------------------------------------------------------------------------------------------------------


def test_the_objects_of_a_chain_are_jobs_of_the_next_model_with_all_that_the_request_has(rig: Rig) -> None:
    client = Client(rig, "plates", timeout=5.0, priority=7)
    finder = rig.admitted()
    rig.now += 1.0
    reply(rig, finder, 0.75, objects=2)
    children = rig.told(Admit)
    for child in children:
        assert child.part is not None
        assert finder.part is not None
        assert (child.model, child.ref, child.deadline, child.priority) == ("reader", finder.ref, finder.deadline, 7)
        assert (child.received, child.part.crop, child.part.picture) == (rig.now, CROP, finder.part.picture)
    reply(rig, children[1], 0.25)
    assert client.replies == 0
    reply(rig, children[0], 0.125)
    (answer,) = client.found
    assert (answer.model, answer.timing["total"]) == ("plates", 1.0)
    assert [scores(each) for each in answer.children] == [{"reader": 0.125}, {"reader": 0.25}]


def test_a_chain_that_finds_nothing_is_an_answer(rig: Rig) -> None:
    client = Client(rig, "plates")
    reply(rig, rig.admitted(), crops=0)
    assert (client.found[0].children, client.found[0].left_out) == ([{}], {})


def test_a_picture_is_kept_until_the_last_crop_is_sent(rig: Rig) -> None:
    Client(rig, "deep")
    finder = rig.admitted()
    assert finder.part is not None
    reply(rig, finder, objects=1)
    (plates,) = rig.told(Admit)  # in which something is found again
    reply(rig, plates, objects=2)
    rig.outbox.flush()
    *children, end = rig.outbox.sent
    assert end == AllCut(finder.part.picture)
    rig.outbox.sent.clear()
    for child in children:
        assert isinstance(child, Admit)
        reply(rig, child)
    assert rig.told(AllCut) == []


@pytest.mark.parametrize("end", ["nothing found", "an error", "cancelled", "the deadline"])
def test_a_picture_is_kept_no_longer_than_its_request_lasts(rig: Rig, end: str) -> None:
    client = Client(rig, "plates")
    finder = rig.admitted()
    assert finder.part is not None
    if end == "nothing found":
        reply(rig, finder, crops=0)
    elif end == "an error":
        rig.refuse(finder.job)
    elif end == "cancelled":
        rig.core.request(protocol.Cancel(id=1, job=client.request), client)
    else:
        rig.pass_time(TIMEOUT + 1.0)
    assert client.replies == 1
    assert rig.told(AllCut) == [AllCut(finder.part.picture)]
    if end in ("cancelled", "the deadline"):
        rig.refuse(finder.job, "DROPPED")
        rig.release(finder.job)


def test_of_a_fan_nothing_is_cut_out(rig: Rig) -> None:
    Client(rig, "finder+reader")
    admits = rig.told(Admit)
    assert [admit.part and admit.part.together for admit in admits] == [("finder", "reader")] * 2
    for admit in admits:
        reply(rig, admit)
    assert rig.told(AllCut) == []


def test_children_hang_under_their_objects_in_the_map(rig: Rig) -> None:
    client = Client(rig, "plates", format="objects")
    reply(rig, rig.admitted(), objects=2, left_out=3)
    one, two = rig.told(Admit)
    rig.refuse(one.job, "BAD_INPUT")
    reply(rig, two, 0.25)
    assert client.maps == [
        {
            "predictions": [
                {
                    "confidence": 0.5,
                    "children": {"reader": {"error": {"code": "BAD_INPUT", "message": "for a reason"}}},
                },
                {"confidence": 0.5, "children": {"reader": {"predictions": [{"confidence": 0.25}]}}},
            ],
            "left_out": {"reader": 3},
        }
    ]


def test_chains_of_chains_and_several_children_of_an_object(rig: Rig) -> None:
    client = Client(rig, "both")
    reply(rig, rig.admitted(), objects=1)
    reader, plates = rig.told(Admit)
    assert (reader.model, plates.model) == ("reader", "finder")
    reply(rig, plates, 0.75, objects=1)
    (below,) = rig.told(Admit)
    reply(rig, reader, 0.25)
    reply(rig, below, 0.125)
    children = client.found[0].children[0]
    assert scores(children) == {"reader": 0.25, "plates": 0.75}
    plates_answer = children["plates"]
    assert isinstance(plates_answer, Answer)
    assert [scores(each) for each in plates_answer.children] == [{"reader": 0.125}]


def test_an_error_of_the_first_model_is_that_of_the_chain(rig: Rig) -> None:
    client = Client(rig, "plates")
    rig.refuse(rig.admitted().job)
    assert (client.code, client.errors[0].message) == ("BAD_INPUT", "for a reason")


def test_a_picture_of_many_objects_sends_a_few_at_a_time(rig: Rig) -> None:
    client = Client(rig, "plates")
    reply(rig, rig.admitted(), objects=30)
    first = rig.told(Admit)
    assert len(first) == 16
    for admit in first:
        reply(rig, admit)
    for admit in rig.told(Admit):
        reply(rig, admit)
    answer = client.found[0]
    assert sum(map(len, answer.children)) == 20  # max_crops
    assert answer.left_out == {"reader": 10}


def test_children_that_find_a_full_queue_wait_for_a_place(rig: Rig) -> None:
    client = Client(rig, "plates")
    reply(rig, rig.admitted(), objects=2)
    one, two = rig.told(Admit)
    rig.take(Refused(one.job, "RESOURCE_UNAVAILABLE", "full", SlotFate.FREE, "queue_full", 0.5))
    reply(rig, two)
    assert (client.replies, rig.told(Admit)) == (0, [])
    rig.pass_time(0.6)
    reply(rig, rig.admitted(), 0.125)
    assert [scores(each) for each in client.found[0].children] == [{"reader": 0.125}, {"reader": 0.5}]


def test_children_that_wait_at_the_deadline_are_errors_in_their_places(rig: Rig) -> None:
    client = Client(rig, "plates", timeout=1.0)
    reply(rig, rig.admitted(), objects=18)
    children = rig.told(Admit)
    reply(rig, children[0])
    rig.told(Admit)
    rig.pass_time(2.0)
    codes = [scores(each)["reader"] for each in client.found[0].children]
    assert codes == [0.5, *["DEADLINE_EXCEEDED"] * 17]
    for message in rig.told(Overdue):
        rig.release(message.job)


def test_a_chain_can_be_cancelled_at_any_time(rig: Rig) -> None:
    early, late = Client(rig, "plates"), Client(rig, "plates")
    first, second = rig.told(Admit)
    reply(rig, second, objects=3)
    children = rig.told(Admit)
    for client in (early, late):
        rig.core.request(protocol.Cancel(id=1, job=client.request), client)
        assert client.code == "DROPPED"
    assert {message.job for message in rig.told(CancelJob)} == {first.job, *(admit.job for admit in children)}
    for admit in (first, *children):
        rig.refuse(admit.job, "DROPPED", SlotFate.HELD)
        rig.release(admit.job)


def test_a_chain_that_was_not_sent_yet_can_be_cancelled(rig: Rig) -> None:
    client = Client(rig, "plates")
    rig.core.request(protocol.Cancel(id=1, job=client.request), client)
    assert (client.code, rig.told(Admit), rig.told(CancelJob)) == ("DROPPED", [], [])


def test_a_request_that_comes_again_is_answered_once(rig: Rig) -> None:
    client = Client(rig, "plates")
    rig.core.request(protocol.Infer(id=client.request, model="plates"), client, memoryview(b"picture"))
    reply(rig, rig.admitted(), crops=0)
    assert client.replies == 1


def test_a_new_dispatcher_gets_the_jobs_that_are_under_way_and_no_others(rig: Rig) -> None:
    client = Client(rig, "plates")
    reply(rig, rig.admitted(), objects=1)
    child = rig.admitted()
    rig.new_dispatcher()
    assert rig.told(Admit) == [child]
    reply(rig, child)
    assert client.replies == 1


@pytest.mark.parametrize("doubt", [False, True])
def test_a_job_of_a_cancelled_chain_that_is_sent_in_again_is_cancelled_again_and_its_picture_let_go(
    rig: Rig, doubt: bool
) -> None:
    client = Client(rig, "plates")
    finder = rig.admitted()
    assert finder.part is not None
    rig.core.request(protocol.Cancel(id=1, job=client.request), client)
    rig.outbox.flush()
    rig.outbox.sent.clear()  # lost with whom it was sent to
    if doubt:
        rig.take(AnswersInDoubt((finder.job,)))
    else:
        rig.new_dispatcher()
    rig.outbox.flush()
    assert rig.outbox.sent[-3:] == [finder, CancelJob(finder.job), AllCut(finder.part.picture)]
    rig.outbox.sent.clear()
    rig.refuse(finder.job, "DROPPED")
    assert client.code == "DROPPED"


def test_an_answer_in_doubt_is_asked_for_again(rig: Rig) -> None:
    client = Client(rig, "plates")
    reply(rig, rig.admitted(), objects=1)
    child = rig.admitted()
    rig.take(AnswersInDoubt((child.job,)))
    assert rig.told(Admit) == [child]
    reply(rig, child)  # it was alive
    assert client.replies == 1
    assert [(message.job, message.held) for message in rig.told(CancelJob)] == [(child.job, True)]
    rig.release(child.job)


def test_a_poisonous_crop_is_known_and_the_picture_is_not(rig: Rig) -> None:
    for _ in range(2):
        client = Client(rig, "plates")
        reply(rig, rig.admitted(), objects=1)
        for child in rig.told(Admit):
            rig.refuse(child.job, Poison.code)
        assert scores(client.found[0].children[0]) == {"reader": "POISON"}
    plain = rig.infer(model="reader")
    rig.answer(rig.admitted().job)
    assert plain.answers == [b"answer"]


def test_a_stop_gives_up_chains_as_it_does_jobs(rig: Rig) -> None:
    client = Client(rig, "plates")
    reply(rig, rig.admitted(), objects=3)
    rig.stop()
    left = rig.core.give_up()
    assert (client.code, left.abandoned) == ("SERVER_UNAVAILABLE", 1)


def test_tensors_have_no_pixels_to_cut_out(rig: Rig) -> None:
    tensors = [Tensor("x", "float32", (1,))]
    client = Client(rig, "plates", kind="tensors", tensors=tensors)
    assert client.code == "BAD_INPUT"
    assert "tensors have no pixels" in client.errors[0].message


def test_a_chain_is_there_while_its_models_are(rig: Rig) -> None:
    def listed() -> dict[str, str]:
        (found,) = rig.ask(protocol.Models).results
        return {model["name"]: model["chain"] for model in found}

    assert listed() == {"m": "", "finder": "", "reader": "", **CHAINS}
    rig.take(ModelClosed("reader"))
    assert listed() == {"m": "", "finder": ""}
    client = Client(rig, "plates")
    assert client.code == "UNKNOWN_MODEL"
    assert "chain 'plates': no model 'reader' is served" in client.errors[0].message


def test_requests_under_way_end_with_the_chain_that_they_began_with(rig: Rig) -> None:
    client, other = Client(rig, "plates"), Client(rig, "plates")
    first, second = rig.told(Admit)
    reply(rig, first, objects=1)
    rig.take(ChainsServed({"plates": "reader", "new": "finder"}))
    assert Client(rig, "both").code == "UNKNOWN_MODEL"
    Client(rig, "plates")
    child, now = rig.told(Admit)
    assert (child.model, now.model) == ("reader", "reader")
    reply(rig, child)
    reply(rig, second, objects=1)
    reply(rig, rig.admitted())
    assert [list(found.found[0].children[0]) for found in (client, other)] == [["reader"], ["reader"]]
    reply(rig, now)
    (listed,) = rig.ask(protocol.Models).results
    chains = {model["name"]: model["chain"] for model in listed if model["chain"]}
    assert chains == {"plates": "reader", "new": "finder"}


def test_jobs_are_counted_by_model_and_requests_by_what_was_asked(rig: Rig) -> None:
    Client(rig, "plates")
    reply(rig, rig.admitted(), objects=2)
    for child in rig.told(Admit):
        reply(rig, child)
    Client(rig, "finder+plates", timeout=TIMEOUT)
    for admit in rig.told(Admit):
        reply(rig, admit, crops=0)
    models = rig.core.own_status()["models"]
    assert {name: dict(tally["ends"]) for name, tally in models.items()} == {
        "plates": {"answered": 1},
        "finder": {"answered": 3},
        "reader": {"answered": 2},
    }
    assert sum(tally["bytes_in"] for tally in models.values()) == 2 * len(b"picture")
