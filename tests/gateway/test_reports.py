"""What clients tell of their live sources."""

from __future__ import annotations

from parallel_infer import protocol
from parallel_infer.gateway.counters import MOST_SOURCES, OTHERS
from tests.gateway.core_rig import Rig


def test_the_last_report_is_in_the_status_beside_the_counters(rig: Rig) -> None:
    rig.ask(protocol.Report, source="gate", state="connecting")
    rig.infer(source="gate")
    rig.answer(rig.admitted().job)
    counts = (protocol.Counted("in", "door", "person", 3),)
    facts = {"state": "reconnecting", "message": "it hung up", "dropped": 7, "restarts": 1, "counts": counts}
    told = rig.ask(protocol.Report, source="gate", **facts)
    assert told.results == [{}]
    rig.pass_time(2.0)
    (source,) = rig.core.own_status()["sources"].values()
    assert (source["answered"], source["dropped"]) == (1, 0)
    assert source["client"] == {
        "state": "reconnecting",
        "message": "it hung up",
        "dropped": 7,
        "expired": 0,
        "failed": 0,
        "restarts": 1,
        "counts": [("in", "door", "person", 3)],
        "age": 2.0,
    }


def test_a_source_of_a_client_that_tells_nothing_has_no_report(rig: Rig) -> None:
    rig.infer(source="gate")
    rig.answer(rig.admitted().job)
    assert rig.core.own_status()["sources"]["gate"]["client"] is None


def test_reports_take_no_more_room_than_frames(rig: Rig) -> None:
    for number in range(MOST_SOURCES + 5):
        rig.ask(protocol.Report, source=f"camera {number}", state="live")
    sources = rig.core.own_status()["sources"]
    assert len(sources) <= MOST_SOURCES + 1
    assert sources.get(OTHERS, {"client": None})["client"] is None
