"""`parallel-infer stream` as users call it."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from click.testing import CliRunner

from parallel_infer import Answer
from parallel_infer.cli import main
from parallel_infer.cli.video_display import summary
from parallel_infer.errors import WorkerLost
from tests.video.conftest import FRAMES
from tests.video.mjpeg import jpeg


def stream(server, *arguments):
    return CliRunner().invoke(main, ["stream", "--server", server.address, "--model", "detector", *map(str, arguments)])


def lines(result):
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    return [row for row in rows if "state" not in row], [row for row in rows if "state" in row]


def length(path):
    return int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT))


def test_json_lines_and_a_saved_video_of_every_frame(server, video, tmp_path):
    target = tmp_path / "seen.mp4"
    result = stream(server, video, "--json", "--save", target, "--option", "max_detections=1")
    assert result.exit_code == 0, result.output
    frames, states = lines(result)
    assert [row["frame"] for row in frames] == list(range(FRAMES))
    first = frames[0]
    assert first["source"] == str(video)
    assert first["image"] == {"width": 320, "height": 240}
    assert 0 < first["age_ms"] < 60_000
    assert (first["dropped"], first["expired"]) == (0, 0)
    assert first["captured"] <= frames[-1]["captured"]
    assert all(len(row["predictions"]) <= 1 for row in frames)
    assert [row["state"] for row in states] == ["connecting", "live", "ended"]
    assert states[-1]["answered"] == FRAMES
    assert length(target) == FRAMES
    saved = cv2.VideoCapture(str(target))
    assert saved.get(cv2.CAP_PROP_FPS) == 25
    assert saved.read()[1].shape == (240, 320, 3)


def test_a_saved_live_source_lasts_as_long_as_what_was_watched(server, video, tmp_path):
    target = tmp_path / "seen.mp4"
    result = stream(server, video, "--realtime", "--json", "--save", target)
    assert result.exit_code == 0, result.output
    frames, states = lines(result)
    assert states[-1]["frames"] == FRAMES
    seconds = frames[-1]["captured"] - frames[0]["captured"]
    assert abs(length(target) - (1 + seconds * 25)) <= 1


def test_one_failing_source_makes_the_exit_code(server, video, pictures, tmp_path):
    result = stream(server, video, pictures, tmp_path / "missing.mp4", "--show-stats", "--save", tmp_path / "all.mp4")
    assert result.exit_code == 1
    assert f"{tmp_path / 'missing.mp4'}: failed: no such file; 0 frames" in result.stderr
    assert f"{video}: ended: all {FRAMES} frames read; {FRAMES} frames, {FRAMES} answered, 0 dropped" in result.stderr
    assert len(result.stdout.splitlines()) == FRAMES + 3
    table = [line.split() for line in result.stderr.splitlines() if line.startswith(str(video))]
    assert table[-1][1:6] == ["ended", str(FRAMES), str(FRAMES), "0", "0"]
    saved = {path.name for path in tmp_path.glob("all*")}
    assert saved == {"all-street.mp4", "all-pictures.mp4", "all-pictures.2.mp4", "all-pictures.3.mp4"}


def test_bad_usage(server, video, tmp_path):
    assert stream(server, video, "--drop", "some").exit_code == 2
    assert stream(server, video, "--save", tmp_path / "a.gif").exit_code == 2
    assert stream(server, video, "--save", tmp_path / "nowhere" / "a.mp4").exit_code == 2
    assert stream(server).exit_code == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT], ids=lambda number: number.name)
def test_a_signal_finishes_everything_and_no_password_is_seen(server, play_camera, tmp_path, number):
    def play(viewer):
        viewer.begin()
        while True:
            viewer.send(jpeg(240, 320, 3))

    camera = play_camera(play)
    url = camera.url.replace("//", "//user:hunter2@")
    target = tmp_path / "seen.mp4"
    command = [sys.executable, "-m", "parallel_infer", "stream", url, "--server", server.address, "--model", "detector"]
    command += ["--json", "--save", str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = [process.stdout.readline() for _ in range(4)]
            for child in psutil.Process(process.pid).children():
                child.send_signal(number)  # as to a whole group: capturing ends when its parent says so
            process.send_signal(number)
            rest, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    output = "".join(said) + rest
    assert process.returncode == 0, errors
    last = json.loads(output.splitlines()[-1])
    assert (last["state"], last["message"]) == ("ended", "stopped")
    assert "hunter2" not in output + errors
    assert length(target) > 0


def test_with_nohup_a_stream_outlasts_its_terminal(server, play_camera):
    def play(viewer):
        viewer.begin()
        while True:
            viewer.send(jpeg(240, 320, 3))

    command = ["nohup", sys.executable, "-m", "parallel_infer", "stream", "detector", play_camera(play).url, "--json"]
    with subprocess.Popen(
        [*command, "--server", server.address], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            for number in range(100):
                row = json.loads(process.stdout.readline())
                if number == 5:
                    process.send_signal(signal.SIGHUP)
            assert "frame" in row
            process.terminate()
            rest, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert json.loads(rest.splitlines()[-1])["message"] == "stopped"


_IN_A_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "parallel_infer", *sys.argv[1:]])
"""


def test_a_terminal_that_goes_away_leaves_a_finished_file(server, play_camera, tmp_path):
    def play(viewer):
        viewer.begin()
        while True:
            viewer.send(jpeg(240, 320, 3))

    target = tmp_path / "seen.mp4"
    arguments = ["stream", play_camera(play).url, "--server", server.address, "--model", "detector"]
    command = [sys.executable, "-c", _IN_A_TERMINAL, *arguments, "--save", str(target)]
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        seen = b""
        while b"dropped" not in seen or not list(tmp_path.glob(".parallel-infer-*.mp4")):  # a row of what was answered
            seen += os.read(terminal, 4096)
        os.close(terminal)  # the kernel sends SIGHUP, and every write fails from now on
        process.wait(60)
    finally:
        process.kill()
        process.wait()
    assert length(target) > 0
    assert cv2.VideoCapture(str(target)).read()[0]


def test_ps_shows_no_password(server, play_camera):
    def play(viewer):
        viewer.begin()
        while True:
            viewer.send(jpeg(240, 320, 3))

    url = play_camera(play).url.replace("//", "//user:hunter2@")
    command = [sys.executable, "-m", "parallel_infer", "stream", url, "--server", server.address, "--model", "detector"]
    with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            shown = Path(f"/proc/{process.pid}/cmdline").read_text()
        finally:
            process.terminate()
            process.communicate(timeout=60)
    assert "***@" in shown
    assert "hunter2" not in shown


def test_a_password_that_must_be_encoded_is_said_to(server):
    result = stream(server, "rtsp://user:pa@qzx#wo:rd@127.0.0.1:1/x", "--attempts", 0, "--json")
    assert result.exit_code == 1
    assert "qzx" not in result.output
    assert "write them as %40" in lines(result)[1][-1]["message"]


def test_a_folder_and_a_recording_whose_names_are_no_text(server, pictures, video, tmp_path):
    folder = tmp_path / "caf\udce9"
    folder.mkdir()
    shutil.copy(pictures / "chelsea.png", folder / "\udce9.png")
    shutil.copy(video, folder / "\udce9.mp4")
    _, states = lines(stream(server, folder, folder / "\udce9.mp4", "--json"))
    ended = {row["source"]: row["answered"] for row in states if row["state"] == "ended"}
    shown = f"{tmp_path}/caf\N{REPLACEMENT CHARACTER}"
    assert ended == {shown: 1, f"{shown}/\N{REPLACEMENT CHARACTER}.mp4": FRAMES}


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_said(server, tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir(mode=0)
    powerless = ["setpriv", "--inh-caps", "-all", "--bounding-set", "-all"] if os.geteuid() == 0 else []
    command = [sys.executable, "-m", "parallel_infer", "stream", "--server", server.address, "--model", "detector"]
    ran = subprocess.run([*powerless, *command, folder], capture_output=True, text=True, check=False)
    folder.chmod(0o700)
    assert ran.returncode == 1
    assert "failed: it cannot be read: Permission denied" in ran.stderr


def test_results_say_where_in_a_recording_they_are(server, video, pictures):
    frames, _ = lines(stream(server, video, "--json"))
    assert [row["frame"] for row in frames] == list(range(FRAMES))
    assert [row["position"] for row in frames] == pytest.approx([number / 25 for number in range(FRAMES)], abs=0.002)
    frames, _ = lines(stream(server, video, "--json", "--fps", "5"))
    assert [round(row["position"] * 25) for row in frames] == [row["frame"] for row in frames]
    assert "#2 at 0.08 s, " in stream(server, video).stdout.splitlines()[2]
    frames, _ = lines(stream(server, pictures, "--json"))
    assert all("position" not in row for row in frames)


def piped(server, content, *arguments):
    command = [sys.executable, "-m", "parallel_infer", "stream", "detector", "-", "--server", server.address, "--json"]
    return subprocess.run([*command, *arguments], input=content, capture_output=True, timeout=100, check=False)


def as_matroska(video, folder):
    source, path = cv2.VideoCapture(str(video)), folder / "street.mkv"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (320, 240))
    while (read := source.read())[0]:
        writer.write(read[1])
    writer.release()
    return path.read_bytes()


@pytest.mark.parametrize("form", ["matroska", "jpeg"])
def test_standard_input_is_read_as_a_video_or_pictures_one_after_the_other(server, video, tmp_path, form):
    count = FRAMES if form == "matroska" else 7
    content = as_matroska(video, tmp_path) if form == "matroska" else b"".join(jpeg(240, 320, n) for n in range(count))
    result = piped(server, content, "--save", str(tmp_path / "seen.mp4"))
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    frames = [row for row in rows if "state" not in row]
    assert [row["frame"] for row in frames] == list(range(count))
    assert {row["source"] for row in rows} == {"stdin"}
    assert frames[5]["position"] == pytest.approx(0.2, abs=0.002)
    assert rows[-1]["state"] == "ended"
    assert length(tmp_path / "seen.mp4") == count


def test_standard_input_that_is_no_video_is_said(server):
    for content in (b"", b"no video at all"):
        result = piped(server, content)
        assert result.returncode == 1
        assert json.loads(result.stdout.splitlines()[-1])["state"] == "failed"
    assert stream(server, "-", "-").exit_code == 2
    assert stream(server, "-", "--realtime").exit_code == 2


def test_a_fan_is_told_part_by_part():
    boxes = {"boxes": np.zeros((2, 4), np.float32), "scores": np.ones(2, np.float32), "classes": np.zeros(2, np.int64)}
    fan = Answer("fan", "a+b", {})
    fan.parts = {"a": Answer("detect", "a", boxes, {0: "person"}), "b": WorkerLost("it died")}
    assert summary(fan) == "a: 2 person; b: WORKER_LOST: it died"
