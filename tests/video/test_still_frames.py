"""Frames that show nothing new: they get the answer of the last inferred one, and nothing that comes in is missed."""

from __future__ import annotations

import json
from collections import Counter

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from parallel_infer import Answer
from parallel_infer.cli import main
from parallel_infer.video import Result, Streams, StreamSettings
from parallel_infer.video.still import StillFrames, blocks_of

HEIGHT, WIDTH = 240, 320
BEFORE, MOVING, AFTER = 20, 6, 34  # frames: nothing there, somebody comes in, and stays
ANSWER = Answer("detect", "m", {}, width=WIDTH, height=HEIGHT, timing={"infer": 0.01, "total": 0.02}, batch_size=3)


def noisy(scene, seed, sigma):
    noise = np.random.default_rng(seed).normal(0, sigma, scene.shape)
    return np.clip(scene + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def scene(pictures):
    """An empty picture of 320x240: sky, and a floor."""
    empty = np.full((HEIGHT, WIDTH, 3), (200, 180, 160), np.uint8)
    empty[HEIGHT // 2 :] = (90, 100, 110)
    return empty


@pytest.fixture(scope="module")
def somebody(pictures):
    """The person of a shipped picture, 120 pixels wide."""
    picture = cv2.imread(str(pictures / "astronaut.png"))
    return cv2.resize(picture, (160, 200), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def camera(tmp_path_factory, scene, somebody):
    """A folder of frames: an empty scene with a sensor's noise into which somebody comes from the right, and stays."""
    folder = tmp_path_factory.mktemp("camera")
    for number in range(BEFORE + MOVING + AFTER):
        frame = scene.copy()
        step = min(max(0, number - BEFORE + 1), MOVING)
        width = round(somebody.shape[1] * step / MOVING)
        frame[20 : 20 + somebody.shape[0], WIDTH - width :] = somebody[:, :width]
        cv2.imwrite(str(folder / f"{number:03}.png"), noisy(frame, number, 3.0))
    return folder


# --- what counts as still ---------------------------------------------------------------------------------------------


def still(scene, other, threshold=10.0, captured=1.0):
    """The answer that `other` shares with `scene`, which was inferred when it was captured at 0."""
    frames = StillFrames(threshold, 10.0)
    frames.answered(0, blocks_of(scene), 0.0, ANSWER)
    return frames.answer_for(blocks_of(other), captured)


def test_noise_is_nothing_new(scene):
    for seed in range(20):
        assert still(noisy(scene, seed, 5.0), noisy(scene, seed + 100, 5.0)) is not None


@pytest.mark.parametrize("top", range(0, 9, 4))
@pytest.mark.parametrize("left", range(0, 9, 4))
def test_a_small_thing_anywhere_is_something_new(scene, top, left):
    other = scene.copy()
    other[100 + top : 112 + top, 50 + left : 62 + left] = (40, 60, 200)
    assert still(scene, other) is None
    assert still(other, scene) is None, "it went away"


def test_what_is_smaller_than_the_threshold_is_still(scene):
    assert still(scene, scene + 9) is not None
    assert still(scene, scene + 10) is None
    assert still(scene, scene + 10, threshold=11.0) is not None


def test_what_changes_slowly_counts_once_it_adds_up(scene):
    frames = StillFrames(10.0, 10.0)
    frames.answered(0, blocks_of(scene), 0.0, ANSWER)
    found = [frames.answer_for(blocks_of(scene + level), 0.1) is None for level in range(12)]
    assert found == [False] * 10 + [True] * 2


def test_an_old_frame_is_not_compared_with(scene):
    assert still(scene, scene, captured=9.9) is not None
    assert still(scene, scene, captured=10.0) is None


def test_a_frame_of_another_size_is_something_new(scene):
    assert still(scene, scene[:, : WIDTH // 2]) is None


def test_the_latest_frame_that_was_inferred_counts(scene):
    frames = StillFrames(10.0, 10.0)
    frames.answered(5, blocks_of(scene), 0.0, ANSWER)
    frames.answered(4, blocks_of(scene + 50), 0.0, ANSWER)  # its answer came later
    assert frames.answer_for(blocks_of(scene), 0.1) is not None
    assert frames.answer_for(blocks_of(scene + 50), 0.1) is None


def test_a_still_answer_says_so(scene):
    answer = still(scene, scene)
    assert answer is not None
    assert (answer.still, answer.batch_size, answer.seconds) == (True, 0, 0.0)
    assert answer.to_dict()["still"] is True
    assert (ANSWER.still, ANSWER.batch_size, ANSWER.seconds) == (False, 3, 0.02)
    assert "still" not in ANSWER.to_dict()
    drawn, plain = answer.draw(scene), ANSWER.draw(scene)
    assert np.array_equal(plain, scene)
    different = np.argwhere((drawn != plain).any(-1))
    assert len(different)
    assert different.min(0)[0] > 0.8 * HEIGHT
    assert different.min(0)[1] > 0.7 * WIDTH, "a label at the bottom right"


# --- streams ----------------------------------------------------------------------------------------------------------


def watched(address, camera, **settings):
    """The result of each frame, and the counts."""
    with Streams([str(camera)], "detector", address, settings=StreamSettings(**settings)) as streams:
        results = [event for event in streams if isinstance(event, Result)]
        return results, streams.tallies[str(camera)]


def test_somebody_who_comes_in_is_seen_in_the_same_frame(server, camera):
    every, _ = watched(server.address, camera)
    with server.client() as client:
        before = client.status()["models"]["detector"]["batched_rows"]
        results, tally = watched(server.address, camera, skip_still=10.0)
        inferred = client.status()["models"]["detector"]["batched_rows"] - before
    frames = BEFORE + MOVING + AFTER
    assert [result.frame for result in results] == list(range(frames))
    assert tally.counts()["frames"] == tally.answered == frames
    assert tally.still + inferred == frames
    assert tally.still == sum(result.answer.still for result in results) > 0.5 * frames
    there = [result.frame for result in every if "person" in result.answer.names]
    assert set(there) >= set(range(BEFORE + MOVING, frames)), "the scene shows somebody"
    assert min(there) >= BEFORE
    for result, expected in zip(results, every, strict=True):
        assert Counter(result.answer.names)["person"] == Counter(expected.answer.names)["person"], result.frame
    moving = results[BEFORE : BEFORE + MOVING]
    assert not any(result.answer.still for result in moving)


def test_the_command_marks_them(server, camera, tmp_path):
    arguments = ["stream", "--server", server.address, "--model", "detector", str(camera), "--skip-still", "10"]
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    frames, end = [row for row in rows if "frame" in row], rows[-1]
    assert end["state"] == "ended"
    assert end["still"] == sum("still" in row for row in frames) > 0
    assert all(row["time"] == 0 for row in frames if row.get("still"))
    assert len({row["inference_id"] for row in frames}) == len(frames)


@pytest.mark.parametrize("wrong", ["0", "256", "much"])
def test_a_threshold_is_a_level(server, camera, wrong):
    result = CliRunner().invoke(
        main, ["stream", "--server", server.address, "detector", str(camera), "--skip-still", wrong]
    )
    assert result.exit_code == 2
    assert "--skip-still" in result.output
