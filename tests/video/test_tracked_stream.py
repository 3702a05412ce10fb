"""`stream --track`, and `Streams` that follow objects: from a real server to the lines and the picture."""

from __future__ import annotations

import itertools
import json
import sys
from collections import Counter

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from parallel_infer import Answer
from parallel_infer.cli import main
from parallel_infer.cli.track_options import tracking
from parallel_infer.errors import ConfigError
from parallel_infer.tracking.settings import Tracking
from parallel_infer.tracking.shapes import Zone
from parallel_infer.video import Result, Streams, StreamSettings
from tests.video.conftest import FRAMES


def stream(server, *arguments, model="detector"):
    return CliRunner().invoke(main, ["stream", "--server", server.address, "--model", model, *map(str, arguments)])


def rows(result):
    assert result.exit_code == 0, result.output
    found = [json.loads(line) for line in result.stdout.splitlines()]
    return [row for row in found if "frame" in row], found[-1]


def frames_of(path):
    capture = cv2.VideoCapture(str(path))
    while (read := capture.read())[0]:
        yield read[1]


@pytest.fixture(scope="module")
def walk(tmp_path_factory, pictures):
    """A recording of 30 frames of 480x270 in which a person goes from the left to the right."""
    path = tmp_path_factory.mktemp("walk") / "walk.mp4"
    person = cv2.resize(cv2.imread(str(pictures / "astronaut.png")), (200, 200), interpolation=cv2.INTER_AREA)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (480, 270))
    for number in range(FRAMES):
        frame = np.full((270, 480, 3), (150, 160, 150), np.uint8)
        frame[60:260, 8 * number : 8 * number + 200] = person
        writer.write(frame)
    writer.release()
    return path


def test_a_person_keeps_a_number_and_is_counted_once(server, walk, tmp_path):
    target = tmp_path / "seen.mp4"
    line, zone = "0.5,1,0.5,0:door", "0.5,0,1,0,1,1,0.5,1:yard"
    frames, end = rows(stream(server, walk, "--json", "--save", target, "--count-line", line, "--count-zone", zone))
    assert [row["frame"] for row in frames] == list(range(FRAMES))
    seen = Counter(found["tracker_id"] for row in frames for found in row["predictions"] if found["class"] == "person")
    assert max(seen.items(), key=lambda item: item[1])[0] > 0
    assert max(seen.values()) > 0.8 * FRAMES
    assert end["counts"] == frames[-1]["counts"]
    door, yard = end["counts"]["lines"]["door"], end["counts"]["zones"]["yard"]
    assert (door["in"]["person"], door["out"].get("person", 0)) == (1, 0)
    assert (yard["present"]["person"], yard["entered"]["person"]) == (1, 1)
    assert frames[0]["counts"]["zones"]["yard"]["entered"].get("person", 0) == 0
    last = list(frames_of(target))[-1]
    assert len(last) == 270
    line_of_pixels = last[:60, 240].astype(int)
    yellow = np.abs(line_of_pixels - (0, 255, 255)).max(-1) < 80
    assert yellow.mean() > 0.5, "the line is drawn"


def test_without_lines_and_zones_there_are_only_numbers(server, walk):
    frames, end = rows(stream(server, walk, "--json", "--track", "--conf", "0.3", "--fps", "12.5"))
    assert "counts" not in end
    found = [found for row in frames for found in row["predictions"]]
    assert all("tracker_id" in one for one in found)
    assert all(one["confidence"] >= 0.3 or one["tracker_id"] > 0 for one in found)
    assert max(Counter(one["tracker_id"] for one in found if one["class"] == "person").values()) > 0.8 * len(frames)


def test_the_counts_are_told_at_the_end(server, walk):
    text = stream(
        server, walk, "--fps", "12.5", "--count-line", "240,270,240,0:door", "--count-zone", "0,0,1,0,1,1,0,1"
    )
    (door,) = (line for line in text.stderr.splitlines() if line.startswith(f"{walk}: door: in "))
    assert "1 person" in door.partition("; out ")[0]
    assert f"{walk}: zone-1: " in text.stderr


def test_a_camera_that_comes_back_has_other_objects(server, play_camera, pictures):
    picture = cv2.imencode(".jpg", cv2.resize(cv2.imread(str(pictures / "astronaut.png")), (320, 240)))[1].tobytes()

    def play(viewer):
        viewer.begin()
        for _ in itertools.repeat(None) if viewer.number else range(60):
            viewer.send(picture)

    settings = StreamSettings(first_pause=0.05, skip_still=10.0, track=Tracking(zones=(Zone.parse("0,0,1,0,1,1", 1),)))
    url = play_camera(play).url
    before, after = set(), set()
    with Streams([url], "detector", server.address, settings=settings) as streams:
        for event in streams:
            if isinstance(event, Result) and isinstance(event.answer, Answer):
                found = set(event.answer.track_ids.tolist()) - {-1}
                (before if event.frame < 60 else after).update(found)
                assert event.draw().shape == (240, 320, 3)
                if after:
                    break
    assert before
    assert not before & after


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--track-keep", "2"], "--track-keep changes how objects are followed: add --track"),
        (["--count-at", "centre"], "--count-at changes how objects are followed: add --track"),
        (["--count-line", "0,0,1"], "--count-line 0,0,1: a line is x1,y1,x2,y2[:NAME]"),
        (["--count-zone", "0,0,1,1"], "--count-zone 0,0,1,1: a zone is x,y,x,y,x,y...[:NAME] with 3 to 256 points"),
        (["--count-line", "0,0,1,1:a", "--count-line", "0,1,1,0:a"], "another one is called a"),
    ],
)
def test_wrong_usage_is_told_at_once(server, walk, arguments, problem):
    result = stream(server, walk, *arguments)
    assert result.exit_code == 2
    assert problem in result.output


def test_a_model_without_boxes_is_told_at_once():
    given = {"track": True, "lines": (), "zones": (), "track_keep": None, "track_low": None, "count_at": None}
    served = [{"name": "sorter", "task": "classify"}, {"name": "finder", "task": "detect"}]
    with pytest.raises(
        ConfigError, match="--track follows the boxes of objects, and 'sorter' answers with none"
    ) as told:
        tracking(given, "sorter", served)
    assert str(told.value).endswith("take finder")


def test_what_a_fan_or_a_chain_reports_is_followed_and_nothing_else_is_asked_for():
    options = {"track": True, "lines": (), "zones": (), "track_keep": None, "track_low": None, "count_at": None}
    given = {**options, "conf": None, "options": {}}
    finder = {"name": "finder", "task": "detect", "thresholds": {"confidence": 0.4}, "chain": ""}
    served = [finder, {**finder, "name": "plates", "chain": "finder > reader"}, {"name": "sorter", "task": "classify"}]
    alone = tracking(given, "finder", served)
    assert (alone.start, alone.low) == (0.4, 0.1)
    assert [tracking({**given, "conf": conf}, "finder", served).low for conf in (0.05, 0.0)] == [0.05, 0.0]
    for model in ("plates", "finder+sorter"):
        found = tracking(given, model, served)
        assert (found.start, found.low) == (None, None)
        found = tracking({**given, "conf": 0.6, "track_low": 0.2}, model, served)
        assert (found.start, found.low) == (0.6, 0.2)
    with pytest.raises(ConfigError, match="answers with none"):
        tracking(given, "sorter+sorter", served)


def test_a_line_outside_of_the_picture_fails_the_source(server, walk):
    result = stream(server, walk, "--count-line", "0,0,500,0")
    assert result.exit_code == 1
    assert "--count-line 0,0,500,0 is outside of the picture, which is 480x270" in result.stderr


def test_a_missing_library_is_told_at_once(server, walk, monkeypatch):
    for module in ("parallel_infer.tracking.byte_track", "parallel_infer.tracking.following"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    result = stream(server, walk, "--track")
    assert result.exit_code == 2
    assert "pip install 'parallel-infer[track]'" in result.output
