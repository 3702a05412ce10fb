"""The comparison with other servers, without servers: order, journal, agreement and what is told at the end."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.peers.agreement import differences
from benchmarks.peers.campaign import Campaign
from benchmarks.peers.connections import Verdict, result_map
from benchmarks.peers.filters import LINEAR, OWN, Filter, filters, preprocess_of
from benchmarks.peers.journal import Journal, changed, read
from benchmarks.peers.load import Tally, rate_of
from benchmarks.peers.pairs import AS_OURS, AS_STARTED, Conditions, Durations, Pair, Provider, Record, trial_key
from benchmarks.peers.peer import PEERS, Served
from benchmarks.peers.pictures import PICTURES
from benchmarks.peers.schedule import OURS, groups
from benchmarks.peers.summary import extents, in_eight_bits, lines, notes, summary, verdict
from benchmarks.peers.work import Preparation, Setup
from benchmarks.peers.work_times import by_column
from parallel_infer.pipeline import load_pipeline

ZOO = PICTURES.parent
STARTED, SAME = Provider("cpu", "fp32", True, AS_STARTED), Provider("openvino", "bf16", False, AS_OURS)
OWN_LINEAR, BICUBIC, ALL_LINEAR = Filter(OWN, ("linear",)), Filter(OWN, ("bicubic",)), Filter(LINEAR, ("linear",))


@given(st.integers(1, 9), st.integers(0, 5))
def test_every_peer_runs_once_a_round_right_beside_ours(count, number):
    found = groups([f"peer {place}" for place in range(count)], number)
    order = [side for group in found for side in group.order]
    assert sorted(side for side in order if side != OURS) == [f"peer {place}" for place in range(count)]
    for group in found:
        assert group.order.count(OURS) == 1
        at = group.order.index(OURS)
        assert all(abs(group.order.index(peer) - at) == 1 for peer in group.peers)


@given(st.integers(1, 9))
def test_every_other_round_runs_backwards(count):
    peers = [f"peer {place}" for place in range(count)]
    first, second = ([side for group in groups(peers, number) for side in group.order] for number in (0, 1))
    assert first == second[::-1]


def test_a_journal_is_read_up_to_the_line_that_was_cut_off(tmp_path):
    path = tmp_path / "runs" / "one.jsonl"
    journal = Journal(path, {"cores": 2}, {"trial": 1.5})
    journal.put("round 1", [{"per_second": 7.0}])
    whole = path.read_text()
    path.write_text(whole + '["round 2", [{"per_sec')
    assert read(path) == ({"cores": 2}, {"trial": 1.5, "round 1": [{"per_second": 7.0}]})
    facts, values = read(path)
    assert "round 1" in Journal(path, facts, values)
    assert path.read_text() == whole  # and what goes on with it begins a line of its own


def test_what_changed_between_two_runs_is_named():
    before = {"cores": 2, "durations": {"point": 2.0}, "in_flight": [1, 8]}
    assert changed(before, {"cores": 2, "durations": {"point": 2.0}, "in_flight": (1, 8)}) == []
    assert changed(before, before | {"durations": {"point": 3.0}}) == ["durations.point was 2.0, is 3.0"]
    assert changed(before, before | {"decoder": "cv2"}) == ['decoder was null, is "cv2"']


@given(st.integers(1, 16), st.floats(0.05, 0.3), st.floats(0.0, 0.3))
def test_the_rate_of_a_server_that_answers_in_batches_does_not_hang_on_when_the_time_begins(batch, gap, offset):
    moments = [offset + gap * number for number in range(60) for _ in range(batch)]
    assert rate_of(moments, 0.5, 2.0) == pytest.approx(batch / gap)


def test_rates_of_few_answers():
    assert rate_of([], 0.5, 2.5) == 0.0
    assert rate_of([1.0], 0.5, 2.5) == 0.5
    assert rate_of([1.0, 1.0], 0.5, 2.5) == 1.0
    assert rate_of([0.1, 3.0], 0.5, 2.5) == 0.0
    assert rate_of([0.4, 1.0, 1.4], 0.5, 2.5) == pytest.approx(2.0)


def answer(**more):
    return {"boxes": [[0, 0, 10, 10], [50, 50, 90, 90]], "scores": [0.9, 0.8], "classes": [1, 2]} | more


def child(number, score=0.8):
    return {"classes": [number, 7], "scores": [score, 0.1]}


def test_children_are_compared_with_those_of_the_same_object():
    expected = answer(children=[child(3), child(4)])
    turned = {name: values[::-1] for name, values in expected.items()}
    assert differences(expected, turned) == []
    assert differences(expected, answer(children=[child(4), child(3)]))
    assert differences(expected, answer(children=[child(3), child(4, 0.5)]))


def test_our_result_map_is_compared_as_the_peers_answer():
    box = {"x": 5, "y": 5, "width": 10, "height": 10, "class_id": 1, "confidence": 0.9}
    kind = {"predictions": [{"class_id": 3, "confidence": 0.8}], "top": "cat", "confidence": 0.8}
    expected = {"boxes": [[0, 0, 10, 10]], "scores": [0.9], "classes": [1]}
    assert result_map({"predictions": [box]}) == expected
    assert result_map({"predictions": []}) == {"boxes": [], "scores": [], "classes": []}
    assert result_map(kind) == {"scores": [0.8], "classes": [3]}
    chained = result_map({"predictions": [box | {"children": {"second": kind}}]})
    assert chained == expected | {"children": [{"scores": [0.8], "classes": [3]}]}
    with pytest.raises(ValueError, match="DEADLINE"):
        result_map({"predictions": [box | {"children": {"second": {"error": {"code": "DEADLINE_EXCEEDED"}}}}]})


def test_what_only_one_of_two_finds_is_told_by_name():
    less = {name: values[:1] for name, values in answer().items()}
    (text,) = differences(answer(), less)
    assert "class 2" in text
    assert "missing" in text
    (text,) = differences(less, answer())
    assert "too much" in text


@pytest.mark.parametrize("overrides", [{}, {"filter": "bilinear"}, {"filter": "linear"}, {"resize": "letterbox"}])
def test_the_rows_of_the_peers_are_those_of_our_server(overrides):
    spec = load_pipeline().describe("model", ZOO / "classifier.onnx", overrides)
    peers = Preparation(Setup("", 0, preprocess=spec.preprocess))
    rows = load_pipeline().rows(spec)
    for path in sorted(PICTURES.glob("*.png"))[:2]:
        (ours,) = rows(path.read_bytes())[0].values()
        theirs = peers.batch([peers.row(path.read_bytes())])[0]
        off = np.abs(theirs - ours.reshape(theirs.shape)) * spec.preprocess["std"][0]
        assert off.max() < 1.001  # grey levels
        assert (off > 0.001).mean() < 0.002


def test_a_filter_that_is_the_own_one_of_a_model_is_not_measured_twice():
    detector, classifier = (str(ZOO / f"{name}.onnx") for name in ("detector", "classifier"))
    assert filters((OWN, LINEAR), detector) == [Filter(OWN, ("linear",))]
    assert filters((LINEAR,), detector) == [Filter(LINEAR, ("linear",))]
    assert filters((OWN, LINEAR), classifier) == [Filter(OWN, ("bicubic",)), Filter(LINEAR, ("linear",))]
    assert [str(each) for each in filters((OWN,), detector, classifier)] == ["linear > bicubic"]


def test_our_server_is_told_the_filter_in_its_configuration(tmp_path):
    path = str(ZOO / "classifier.onnx")
    assert "--config" not in Served(path).arguments(tmp_path)
    words = Served(path, second=path, filter=LINEAR).arguments(tmp_path)
    told = tomllib.loads(Path(words[words.index("--config") + 1]).read_text())["models"]
    assert told == {"model": {"filter": "linear"}, "second": {"filter": "linear"}}
    assert preprocess_of(path, LINEAR)["filter"] == "linear"


def test_trials_of_an_earlier_run_do_for_both_filters(tmp_path):
    pairs = [Pair("classifier", "", PEERS["mosec"], SAME, filter=each) for each in (BICUBIC, ALL_LINEAR)]
    tried = {trial_key(pairs[0], setting): {"per_second": 1.0} for setting in pairs[0].settings}
    assert next(iter(tried)).startswith("trial, classifier: Mosec (openvino bf16), ")
    conditions = Conditions((1,), (), False, "cv2", 1.0, eight_bits={"classifier": "copy.onnx"})
    for known in (tried, {}):
        journal = Journal(tmp_path / "journal", {}, known)
        turns = Campaign(Durations(rounds=2), conditions, journal, print).left(pairs)
        assert [turn.key for turn in turns if turn.key.startswith("trial")] == [
            key for key in tried if key not in known
        ]
        assert all(turn.pairs == tuple(pairs) for turn in turns if turn.key.startswith("trial"))
        rounds = [turn.key for turn in turns if turn.key.startswith("round")]
        assert len(set(rounds)) == len(rounds) == 2 * 2 * 3  # rounds, filters; ours, the peer, ours in 8 bits


def test_refusals_have_a_latency_of_their_own():
    tally = Tally()
    for verdict_, seconds in ((Verdict.ANSWERED, 0.5), (Verdict.REFUSED, 0.002), (Verdict.EXPIRED, 1.0)):
        tally.add(verdict_, seconds)
    assert tally.figures() | {"p50_ms": 500.0, "refused_p99_ms": 2.0, "refused": 1} == tally.figures()
    assert Tally().figures()["refused_p99_ms"] is None


def record(peer, provider, rates, eight_bits=None, resized=OWN_LINEAR):
    """A pair of the detector: `rates` are (ours over the wire, ours over HTTP, peer) of each round at 32 in flight."""
    rounds = [
        {
            "ours": {"wire": [point(wire)], "http": [point(http)]},
            "peer": [point(theirs)],
            "eight bits": eight_bits and {"wire": [point(eight_bits)]},
        }
        for wire, http, theirs in rates
    ]
    return Record(Pair("detector", "detector.onnx", PEERS[peer], provider, filter=resized), rounds=rounds)


def point(rate):
    faults = {"refused": 0, "expired": 0, "failed": 0}
    return {
        "in_flight": 32,
        "per_second": rate,
        "p50_ms": 1.0,
        "p99_ms": 2.0,
        "client_ms": 0.1,
        "refused_p99_ms": None,
        **faults,
    }


def test_ratios_are_made_within_a_round_and_the_lowest_is_named():
    summaries = [
        summary(record("mosec", SAME, [(100, 90, 100), (60, 50, 40), (80, 99, 80)])),
        summary(record("triton", SAME, [(120, 90, 100)] * 3)),
    ]
    told = verdict(summaries)
    assert told[0] == (
        "filter own, provider as ours, over wire: lowest 1.00 "
        "(detector, linear, Mosec, as ours, 32 in flight, over wire), "
        "0 of 2 below 1.0, median 1.10"
    )
    assert "over http: lowest 0.90 (detector, linear, Triton Python" in told[1]
    assert told[-1].startswith("filter own, provider as ours, over all: lowest 0.90")
    assert "1 of 4 below 1.0" in told[-1]
    assert len(lines(summaries)) == 2 + 4


def test_a_model_that_is_linear_anyway_counts_for_both_filters():
    summaries = [
        summary(record("mosec", SAME, [(100, 100, 100)])),
        summary(record("mosec", SAME, [(90, 90, 100)], resized=BICUBIC)),
        summary(record("mosec", SAME, [(120, 120, 100)], resized=ALL_LINEAR)),
    ]
    found = {(each["filter"], each["over"]): each for each in extents(summaries)}
    assert {key: (each["points"], each["below"], each["median"]) for key, each in found.items()} == {
        ("own", "wire"): (2, 1, 0.95),
        ("own", "http"): (2, 1, 0.95),
        ("own", "all"): (4, 2, 0.95),
        ("linear", "wire"): (2, 0, 1.1),
        ("linear", "http"): (2, 0, 1.1),
        ("linear", "all"): (4, 0, 1.1),
    }
    assert "bicubic" in found["own", "wire"]["where"]
    assert [line.split()[1] for line in lines(summaries)[2::2]] == ["linear", "bicubic", "linear"]


def test_the_notes_tell_what_our_server_found_by_itself():
    found = record("mosec", SAME, [(100, 90, 100)])
    found.setting = found.pair.settings[0]
    found.rounds[0]["ours"]["wire"][0]["own_trial"] = "tried 4 settings"
    assert notes([summary(found)])[0].endswith("; ours as it starts, tried 4 settings")


def test_eight_bits_are_compared_with_the_best_peer_of_each_round_as_it_starts():
    rates = {"mosec": [(1, 1, 50), (1, 1, 20), (1, 1, 40)], "litserve": [(1, 1, 30), (1, 1, 60), (1, 1, 40)]}
    summaries = [summary(record(peer, STARTED, found, eight_bits=120)) for peer, found in rates.items()]
    summaries.append(summary(record("triton", SAME, [(1, 1, 500)] * 3, eight_bits=120)))
    detector, resnet = in_eight_bits(summaries, ["detector", "resnet50"])
    assert detector.startswith("detector in 8 bits, filter own, over wire, 32 in flight: 120.0/s, ")
    assert detector.endswith("best peer as it starts 50.0/s, 2.40 times (2.00-3.00)")
    assert resnet == "resnet50 in 8 bits, filter own: not measured beside a peer as it starts"


def test_processor_time_is_that_of_the_stages_and_the_rest_of_the_server():
    found = {
        "client": [500.0, 500.0],
        "gateway": [200.0, 200.0],
        "decode-0": [1500.0, 100.0],
        "decode-1": [700.0, 100.0],
    }
    assert by_column(found) == pytest.approx({"decode": 2.0, "run": 0.0, "answer": 0.0, "rest": 0.4})


@pytest.mark.parametrize("text", ["", "no JSON\n"])
def test_what_is_no_journal_is_refused(tmp_path: Path, text):
    path = tmp_path / "one.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError):
        read(path)
