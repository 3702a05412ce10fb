"""Doors that wait for a frame of a live source: what they are given, and what it takes."""

from __future__ import annotations

from parallel_infer import protocol
from parallel_infer.ipc.messages import Admit
from tests.gateway.core_rig import Request, Rig


def look(rig: Rig, source: str = "gate", client: bytes = b"door", **fields: float) -> Request:
    return rig.ask(protocol.Look, client, source=source, is_door=True, **fields)


def frame(rig: Rig, payload: bytes = b"frame", source: str = "gate", **fields: object) -> Request:
    """A frame of a source, answered."""
    asked = rig.infer(b"camera", payload, source=source, **fields)
    rig.answer(rig.admitted().job)
    return asked


def test_a_door_is_given_the_next_frame_and_its_answer_once(rig: Rig) -> None:
    frame(rig)
    waits = look(rig)
    assert waits.replies == 0
    frame(rig, b"of another", "yard")
    assert waits.replies == 0
    frame(rig, b"the next")
    (seen,) = waits.results
    assert (seen["kind"], seen["payload"], seen["arrays"], seen["format"]) == (
        "picture",
        b"the next",
        b"answer",
        "arrays",
    )
    frame(rig)
    assert waits.replies == 1


def test_nobody_else_is_told(rig: Rig) -> None:
    frame(rig)
    assert rig.ask(protocol.Look, b"a", source="gate").code == "UNAUTHORIZED"


def test_a_source_that_is_not_there_is_an_empty_result(rig: Rig) -> None:
    assert look(rig, "nobody").results == [None]


def report(rig: Rig, picture: bytes | None = None) -> Request:
    return rig.ask(protocol.Report, b"camera", picture, source="gate", state="live")


def test_a_client_is_told_that_its_source_is_watched_and_its_own_picture_is_shown(rig: Rig) -> None:
    assert report(rig, b"unasked").results == [{}]
    waits = look(rig, seconds=20.0)
    assert report(rig).results == [{"watched": True, "pixels": 384}]
    frame(rig, b"before it draws")
    assert [seen["kind"] for seen in waits.results] == ["picture"]
    waits = look(rig, seconds=20.0)
    report(rig, b"drawn")
    assert [(seen["kind"], seen["payload"]) for seen in waits.results] == [("drawn", b"drawn")]
    waits = look(rig, seconds=60.0)
    frame(rig, b"what the server knows")
    assert waits.replies == 0
    rig.pass_time(11.0)
    frame(rig, b"it draws no more")
    assert [seen["payload"] for seen in waits.results] == [b"it draws no more"]
    rig.pass_time(60.0)
    assert report(rig).results == [{}]


def test_a_picture_that_is_no_preview_is_refused(rig: Rig) -> None:
    told = report(rig, bytes((256 << 10) + 1))
    assert told.code == "BAD_INPUT"
    assert "262145 bytes; up to 262144 are taken" in told.errors[0].message
    assert "option page_picture_pixels" in told.errors[0].message
    assert report(rig, bytes(256 << 10)).code == ""


def test_waiting_ends_with_an_empty_result(rig: Rig) -> None:
    frame(rig)
    waits = look(rig, seconds=5.0)
    rig.pass_time(4.9)
    assert waits.replies == 0
    rig.pass_time(0.2)
    assert waits.results == [None]
    frame(rig)
    assert waits.replies == 1


def test_a_door_waits_once_for_a_source_and_doors_do_not_disturb_each_other(rig: Rig) -> None:
    frame(rig)
    first, second, others = look(rig), look(rig), look(rig, client=b"another door")
    assert (first.results, second.replies) == ([None], 0)
    frame(rig)
    assert second.results[0]["payload"] == others.results[0]["payload"] == b"frame"


def test_a_source_is_known_by_the_name_that_hides_its_password(rig: Rig) -> None:
    frame(rig, source="rtsp://me:secret@camera/1")
    waits = look(rig, "rtsp://***@camera/1")
    frame(rig, b"seen", "rtsp://me:secret@camera/1")
    assert waits.results[0]["payload"] == b"seen"


def test_frames_in_lent_memory_are_seen_too(rig: Rig) -> None:
    lent = rig.ask(protocol.Lend, b"camera", slots=1, size=4096).results[0]
    frame(rig)
    waits = look(rig)
    frame(rig, None, slot=protocol.LentSlot(lent["ring"], 0, 16))
    assert waits.results[0]["payload"] == bytes(16)


def test_a_frame_without_an_answer_is_not_shown_and_a_stop_ends_the_wait(rig: Rig) -> None:
    frame(rig)
    waits = look(rig)
    rig.infer(b"camera", b"bad", source="gate")
    rig.refuse(rig.admitted().job)
    assert waits.replies == 0
    rig.core.give_up()
    assert waits.results == [None]


def test_a_frame_that_a_door_waits_for_is_not_answered_from_the_cache() -> None:
    rig = Rig(cache=1 << 20)
    try:
        frame(rig, b"still")
        again = rig.infer(b"camera", b"still", source="gate")
        assert (again.answers, rig.told(Admit)) == ([b"answer"], [])  # the same frame has the same answer
        waits = look(rig)
        frame(rig, b"still")
        assert waits.results[0]["payload"] == b"still"
        assert rig.infer(b"camera", b"still", source="gate").answers == [b"answer"]
    finally:
        rig.close()
