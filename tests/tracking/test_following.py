"""Answers of one source, one after the other: the numbers they get, and what they leave out."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import supervision

from parallel_infer import Answer
from parallel_infer.answers.selection import selected
from parallel_infer.errors import ConfigError, InferError
from parallel_infer.tracking import following_for
from parallel_infer.tracking.settings import Anchor, CannotFollow, Moment, Tracking
from parallel_infer.tracking.shapes import Line, Zone

WIDTH, HEIGHT, FPS = 640, 480, 25.0


def answer(frame, *scores, task="detect", width=WIDTH, **arrays):
    """Objects side by side that go right, one for each score."""
    boxes = [(10 + 100 * at + 4 * frame, 100, 60 + 100 * at + 4 * frame, 200) for at in range(len(scores))]
    found = {
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "scores": np.array(scores, np.float32),
        "classes": np.zeros(len(scores), np.int64),
        **arrays,
    }
    return Answer(task, "m", found, {0: "person"}, width=width, height=HEIGHT)


def follow(following, frames, *scores, capture=0, **more):
    for frame in frames:
        found = following.follow(answer(frame, *scores, **more), Moment(frame / FPS, capture))
    return found


def test_numbers_are_in_the_answer_its_map_and_its_picture():
    following = following_for(Tracking())
    first, last = follow(following, [0], 0.9, 0.8), follow(following, range(1, 10), 0.9, 0.8)
    assert (first.track_ids.tolist(), last.track_ids.tolist()) == ([-1, -1], [1, 2])
    assert [row["tracker_id"] for row in last.to_dict()["predictions"]] == [1, 2]
    assert supervision.Detections.from_inference(last.to_dict()).tracker_id.tolist() == [1, 2]
    plain = answer(9, 0.9, 0.8)
    assert plain.track_ids is None
    assert all("tracker_id" not in row for row in plain.to_dict()["predictions"])
    gray = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    assert not np.array_equal(last.draw(gray), plain.draw(gray))


def test_what_is_unsure_is_reported_only_where_it_is_followed():
    following = following_for(Tracking(low=0.1), confidence=0.5)
    assert following.confidence == 0.1
    follow(following, range(5), 0.9, 0.4)
    found = follow(following, [5], 0.2, 0.4)
    assert found.scores.tolist() == pytest.approx([0.2])
    assert found.track_ids.tolist() == [1]
    with pytest.raises(ConfigError, match="--track-low 0.1 is above 0.05"):
        following_for(Tracking(low=0.1), confidence=0.05)
    assert following_for(Tracking(), confidence=0.5).confidence is None
    assert following_for(Tracking(start=0.7, low=0.3), confidence=0.5).confidence == 0.3


def test_without_a_lower_score_everything_that_is_reported_is_followed():
    found = follow(following_for(Tracking()), range(3), 0.9, 0.05)
    assert found.track_ids.tolist() == [1, 2]


def fan(frame, *parts):
    whole = Answer("fan", "a+b", {}, width=WIDTH, height=HEIGHT)
    whole.parts = dict(parts)
    return whole


def test_of_a_fan_each_part_is_followed_and_the_first_is_counted():
    following = following_for(Tracking(zones=(Zone.parse("0,0,1,0,1,1,0,1", 1),)))
    sorted_into = Answer("classify", "c", {"scores": np.ones(1, np.float32), "classes": np.zeros(1, np.int64)})
    for frame in range(5):
        parts = [("a", answer(frame, 0.9, 0.8)), ("b", answer(frame, 0.7, task="keypoints")), ("c", sorted_into)]
        if frame == 3:
            parts[0] = ("a", InferError("not this time"))
        found = following.follow(fan(frame, *parts), Moment(frame / FPS, 0))
        assert list(found.parts) == ["a", "b", "c"]
        assert found.parts["c"] is sorted_into
    assert found.parts["a"].track_ids.tolist() == [1, 2]
    assert found.parts["b"].track_ids.tolist() == [1]
    assert following.counts.zones[0].entered == {"person": 2}
    with pytest.raises(CannotFollow, match="'a\\+b' does not"):
        following.follow(fan(5, ("c", sorted_into)), Moment(5 / FPS, 0))


def test_children_stay_with_their_object():
    following = following_for(Tracking(low=0.1), confidence=0.5)
    whole = answer(0, 0.3, 0.9, 0.8)
    whole.children = [{"reader": "none"}, {"reader": "first"}, {"reader": "second"}]
    found = following.follow(whole, Moment(0.0, 0))
    assert found.children == [{"reader": "first"}, {"reader": "second"}]
    assert found.scores.tolist() == pytest.approx([0.9, 0.8])
    assert len(whole.children) == 3


def test_a_source_that_was_lost_starts_anew():
    following = following_for(Tracking())
    follow(following, range(5), 0.9)
    assert follow(following, [5], 0.9, capture=1).track_ids.tolist() == [-1]
    assert follow(following, [6], 0.9, capture=1).track_ids.tolist() == [2]
    assert follow(following, [7], 0.9, capture=1, width=320).track_ids.tolist() == [-1], "pictures of another size"


def test_still_frames_keep_the_numbers():
    following = following_for(Tracking(keep=0.2))
    inferred = answer(1, 0.9)
    follow(following, [0], 0.9)
    assert following.follow(inferred, Moment(1 / FPS, 0)).track_ids.tolist() == [1]
    for frame in range(2, 500):
        again = following.follow(inferred.for_still(), Moment(frame / FPS, 0))
        assert again.still
        assert again.track_ids.tolist() == [1]
    assert following.follow(answer(2, 0.9), Moment(20.0, 0)).track_ids.tolist() == [1]


def test_rotated_boxes_are_followed_by_what_encloses_them():
    following = following_for(Tracking(zones=(Zone.parse("0,0,1,0,1,1,0,1", 1),)))
    found = follow(following, range(9), 0.9, task="obb", angles=np.array([1.57], np.float32))
    assert found.track_ids.tolist() == [1]
    assert following.counts.zones[0].present == {"person": 1}


@pytest.mark.parametrize(("anchor", "entered"), [(Anchor.BOTTOM, {"person": 1}), (Anchor.CENTRE, {})])
def test_counts_are_by_the_chosen_point(anchor, entered):
    line, zone = Line.parse("60,480,60,0", 1), Zone.parse("0,180,640,180,640,480,0,480", 1)
    following = following_for(Tracking(lines=(line,), zones=(zone,), anchor=anchor))
    assert following.counts is None
    follow(following, range(20), 0.9)
    assert following.counts.to_dict() == {
        "lines": {"line-1": {"in": {"person": 1}, "out": {}}},
        "zones": {"zone-1": {"present": entered, "entered": entered}},
    }


def test_a_zone_in_pixels_that_a_smaller_picture_does_not_have_is_named():
    following = following_for(Tracking(lines=(Line.parse("600,0,600,400", 1),)))
    follow(following, range(2), 0.9)
    with pytest.raises(CannotFollow, match="--count-line 600,0,600,400 is outside of the picture, which is 320x480"):
        follow(following, [2], 0.9, width=320)


def test_an_answer_without_boxes_is_named():
    scores = {"scores": np.ones(1, np.float32), "classes": np.zeros(1, np.int64)}
    with pytest.raises(CannotFollow, match="--track needs a model that finds objects with boxes; 'm' does not"):
        following_for(Tracking()).follow(Answer("classify", "m", scores), Moment(0.0, 0))


def test_a_library_that_is_missing_is_named_with_the_command(monkeypatch):
    for module in ("parallel_infer.tracking.byte_track", "parallel_infer.tracking.following"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ConfigError, match=r"tracking needs scipy.*: pip install 'parallel-infer\[track\]'"):
        following_for(Tracking())


def test_selected_objects_keep_their_masks():
    rings = [np.full((size, 2), size, np.float32) for size in (3, 4, 5, 6)]
    arrays = {
        **answer(0, 0.9, 0.8, 0.7).arrays,
        "mask_points": np.concatenate(rings),
        "mask_rings": np.array([3, 4, 5, 6], np.int32),
        "mask_objects": np.array([1, 0, 3], np.int32),
        "keypoints": np.arange(9, dtype=np.float32).reshape(3, 1, 3),
    }
    last = Answer("segment", "m", selected(arrays, np.array([False, True, True])), width=WIDTH, height=HEIGHT)
    assert [sorted(len(ring) for ring in mask) for mask in last.masks] == [[], [4, 5, 6]]
    assert last.keypoints[:, 0, 0].tolist() == [3, 6]
    lengths = {**answer(0, 0.9, 0.8).arrays, "mask_rle": np.frombuffer(b"abcde", np.uint8)}
    lengths["mask_rle_sizes"] = np.array([2, 3], np.int32)
    one = Answer("segment", "m", selected(lengths, np.array([False, True])), width=WIDTH, height=HEIGHT)
    assert [mask["counts"] for mask in one.rle] == ["cde"]


def vector(*numbers):
    return Answer("embedding", "looks", {"embedding": np.array(numbers, np.float32)})


def meeting(frame, *children):
    """Two that meet at the frame 30 and turn back, with what is said of each."""
    way = 4 * min(frame, 60 - frame)
    boxes = np.array([(100 + way, 100, 150 + way, 200), (340 - way, 104, 390 - way, 204)], np.float32)
    whole = answer(frame, 0.9, 0.9, boxes=boxes)
    whole.children = [dict(child) for child in children]
    return whole


def numbers_after(settings, *children):
    following = following_for(settings)
    for frame in range(60):
        said = [child if 5 < frame < 55 or index else {} for index, child in enumerate(children)]
        found = following.follow(meeting(frame, *said), Moment(frame / FPS, 0))
    return found.track_ids.tolist()


def test_embeddings_of_a_chain_tell_objects_apart():
    text = Answer("text", "reader", {"text": np.zeros(0, np.uint8), "scores": np.zeros(0)})
    one, other = {"reader": text, "looks": vector(1, 0)}, {"reader": text, "looks": vector(0, 1)}
    assert numbers_after(Tracking(), one, other) == [1, 2]
    assert numbers_after(Tracking(by="looks"), one, other) == [1, 2]
    assert numbers_after(Tracking(by="boxes"), one, other) == [2, 1]
    assert numbers_after(Tracking(), {}, {"looks": InferError("not this time")}) == [2, 1]
    with pytest.raises(CannotFollow, match="--track-by reader: 'reader' does text, and objects are told apart by emb"):
        numbers_after(Tracking(by="reader"), one, other)
