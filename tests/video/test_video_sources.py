"""What a source is by its text, and that nothing secret of it is ever shown. No process, no server."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_infer.errors import ConfigError
from parallel_infer.video import Drop, Source, SourceKind, StreamSettings, sources_of
from parallel_infer.video.complaints import Complaints
from parallel_infer.video.pacing import ByNumber, ByTime, Clock
from parallel_infer.video.recorder import paths_for
from parallel_infer.video.redaction import redacted

SECRETS = [
    ("rtsp://admin:hunter2@cam/1", "rtsp://***@cam/1"),
    ("rtsp://admin:p@ss/hunter2@cam/1", "rtsp://***@cam/1"),
    ("rtsps://hunter2@cam:554/1?x=1", "rtsps://***@cam:554/1?x=1"),
    ("http://cam/video?user=hunter2&pwd=hunter2&size=2", "http://cam/video?user=***&pwd=***&size=2"),
    ("http://cam/v?access_token=hunter2#t", "http://cam/v?access_token=***#t"),
    ("cannot open rtsp://a:hunter2@cam/1: refused", "cannot open rtsp://***@cam/1: refused"),
    ("http://cam/v?size=2", "http://cam/v?size=2"),
    ("folder/a@b.mp4", "folder/a@b.mp4"),
]


@pytest.mark.parametrize(("text", "shown"), SECRETS)
def test_secrets_are_taken_out(text, shown):
    assert redacted(text) == shown
    assert "hunter2" not in repr(Source.of(text))


@given(st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1), st.text(min_size=1, alphabet="abc/?@:#&=0"))
def test_no_password_survives(password, user):
    secret = f"ZZ{password}ZZ"
    assert secret not in redacted(f"rtsp://{user}:{secret}@cam/path")


@pytest.mark.parametrize(
    ("text", "kind", "address"),
    [
        ("0", SourceKind.CAMERA, "0"),
        ("/dev/video3", SourceKind.CAMERA, "3"),
        ("rtsp://cam/1", SourceKind.NETWORK, "rtsp://cam/1"),
        ("HTTP://cam/1.mjpg", SourceKind.NETWORK, "HTTP://cam/1.mjpg"),
        ("/a/b.mp4", SourceKind.FILE, "/a/b.mp4"),
        ("realtime:/a/b.mp4", SourceKind.REALTIME, "/a/b.mp4"),
        ("/", SourceKind.FOLDER, "/"),
    ],
)
def test_the_text_tells_the_kind(text, kind, address):
    source = Source.of(text)
    assert (source.kind, source.address) == (kind, address)


def test_a_file_called_like_a_number_is_a_file(tmp_path, monkeypatch):
    (tmp_path / "7").touch()
    monkeypatch.chdir(tmp_path)
    assert Source.of("7").kind is SourceKind.FILE


def test_names_differ_even_when_only_the_password_does():
    names = [source.name for source in sources_of(["rtsp://a:1@cam/x", "rtsp://a:2@cam/x", "rtsp://cam/y"])]
    assert names == ["rtsp://***@cam/x", "rtsp://***@cam/x (2)", "rtsp://cam/y"]


def test_every_name_is_short_enough_for_the_server():
    assert all(len(source.name) <= 128 for source in sources_of(["x" * 500] * 20))


def test_files_keep_every_frame_and_live_sources_the_latest():
    settings = StreamSettings()
    assert settings.drop_of(Source.of("a.mp4")) is Drop.NONE
    assert settings.drop_of(Source.of("realtime:a.mp4")) is Drop.LATEST
    assert settings.drop_of(Source.of("0")) is Drop.LATEST
    assert StreamSettings(drop=Drop.OLDEST).drop_of(Source.of("a.mp4")) is Drop.OLDEST


@given(st.floats(0.1, 200), st.floats(1, 120))
def test_thinning_by_number_keeps_the_wanted_rate(wanted, fps):
    thinning = ByNumber(wanted, fps)
    kept = [frame for frame in range(1000) if thinning.keeps(frame, 0.0)]
    assert kept[0] == 0
    assert len(kept) == pytest.approx(1000 * min(1.0, wanted / fps), abs=2)


@given(st.floats(0.5, 60))
def test_thinning_by_time_is_never_much_faster_than_wanted(wanted):
    thinning = ByTime(wanted)
    kept = [now for now in (frame / 50 for frame in range(2000)) if thinning.keeps(0, now)]
    assert len(kept) <= 40 * wanted + 2
    assert len(kept) >= 40 * min(wanted, 50) * 0.6


def test_a_recording_without_a_rate_plays_at_25():
    assert Clock(0.0, start=100.0).due(50) == 102.0


def test_only_the_complaint_itself_is_told(capfd):
    import os

    with Complaints() as complaints:
        os.write(
            2, b"[ WARN:0@0.594] global cap.cpp:212 open VIDEOIO(FFMPEG): cannot\n[rtsp @ 0x55] 401 Unauthorized\n"
        )
        assert complaints.last() == "401 Unauthorized"
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


def test_a_file_for_each_source():
    sources = ["a/street.mp4", "b/street.mp4", "rtsp://***@cam/1?x=2", "0"]
    names = [path.name for path in paths_for(Path("out/all.mp4"), sources).values()]
    assert names == ["all-street.mp4", "all-street-2.mp4", "all-1-x-2.mp4", "all-0.mp4"]
    assert paths_for(Path("all.avi"), ["0"]) == {"0": Path("all.avi")}
    with pytest.raises(ConfigError, match=r"must end in one of \.mp4"):
        paths_for(Path("all.gif"), ["0"])
