"""What a source is by its text, and that nothing secret of it is ever shown. No process, no server."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_infer.errors import ConfigError
from parallel_infer.redaction import needs_encoding, redacted, without_secrets
from parallel_infer.video import Drop, Source, SourceKind, StreamSettings, sources_of
from parallel_infer.video.pacing import ByNumber, ByTime, Clock
from parallel_infer.video.recorder import paths_for
from parallel_infer.video.stderr_capture import StderrCapture

SECRETS = [
    ("rtsp://admin:hunter2@cam/1", "rtsp://***@cam/1"),
    ("rtsp://admin:p@ss/hunter2@cam/1", "rtsp://***@cam/1"),
    ("rtsps://hunter2@cam:554/1?x=1", "rtsps://***@cam:554/1?x=1"),
    ("http://cam/video?user=hunter2&pwd=hunter2&size=2", "http://cam/video?user=***&pwd=***&size=2"),
    ("http://cam/v?access_token=hunter2#t", "http://cam/v?access_token=***"),
    ("http://cam/v?pwd=hunter2#hunter2/hunter2&hunter2&size=2", "http://cam/v?pwd=***&size=2"),
    (
        "rtsp://cam/user=ad_min_password=hunter2_channel=1_stream=0.sdp",
        "rtsp://cam/user=***_password=***_channel=1_stream=0.sdp",
    ),
    ("rtsp://cam/user=x_password=my_hunter2_pass_channel=1", "rtsp://cam/user=***_password=***_channel=1"),
    (
        "rtsp://cam/user=x&password=hunter2&channel=1&stream=0.sdp?",
        "rtsp://cam/user=***&password=***&channel=1&stream=0.sdp?",
    ),
    (
        "http://cam/videostream.cgi?loginuse=x&loginpas=hunter2&rate=0",
        "http://cam/videostream.cgi?loginuse=***&loginpas=***&rate=0",
    ),
    ("http://cam/x?u=a&p=hunter2", "http://cam/x?u=***&p=***"),
    ("http://cam/x#auth=hunter2", "http://cam/x#auth=***"),
    ("http://cam/x;session=hunter2;id=1", "http://cam/x;session=***;id=1"),
    ("srt://cam:9000?passphrase=hunter2&latency=1", "srt://cam:9000?passphrase=***&latency=1"),
    (
        "https://cam/s?X-Amz-Signature=hunter2==&X-Amz-Credential=hunter2",
        "https://cam/s?X-Amz-Signature=***&X-Amz-Credential=***",
    ),
    ("rtsp://cam/0/admin:hunter2/main", "rtsp://cam/0/***/main"),
    ("rtsp://user:pa@hunter2#wo:rd@127.0.0.1:1/x", "rtsp://***@127.0.0.1:1/x"),
    ("admin:hunter2@cam/1", "***@cam/1"),
    ("rtsp:/admin:hunter2@cam/1", "***@cam/1"),
    ("realtime:rtsp://a:hunter2@cam/1", "realtime:rtsp://***@cam/1"),
    ("http://cam:80/a.b", "http://cam:80/a.b"),
    ("/videos/2026-11-26T10:00:00.mp4", "/videos/2026-11-26T10:00:00.mp4"),
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


def test_a_blank_is_part_of_an_address():
    assert Source.of("rtsp://a b:hunter 2@cam/x").name == "rtsp://***@cam/x"
    assert Source.of("http://cam/x?pwd=hunter 2").name == "http://cam/x?pwd=***"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("rtsp://user:pa@qzx#wo:rd@127.0.0.1:1/x", "Failed to resolve hostname qzx: Name or service not known"),
        ("rtsp://user:pa@qzx#wo:rd@127.0.0.1:1/x", "Port missing in uri rd@127.0.0.1"),
        ("rtsp://user:hun%40qzxq@cam/x", "cannot read hun@qzxq"),
        ("rtsp://cam/user=a_password=qz#rd_channel=1.sdp", "404 Not Found: /user=a_password=qz (rd)"),
        ("rtsp://cam/0/a:qzx/1", "no such stream: qzx"),
    ],
)
def test_what_ffmpeg_says_holds_no_piece_of_a_secret(address, message):
    said = without_secrets(message, address)
    assert not [piece for piece in ("qz", "rd", "pa") if piece in said.replace("password", "").replace("param", "")]


def test_what_ffmpeg_says_is_told_otherwise():
    assert without_secrets("Connection to tcp://cam:554 failed: Connection refused", "rtsp://a:b@cam/1") == (
        "Connection to tcp://cam:554 failed: Connection refused"
    )


@pytest.mark.parametrize(
    ("address", "needed"),
    [
        ("rtsp://user:pa@ss@cam/1", True),
        ("rtsp://user:pa#ss@cam/1", True),
        ("rtsp://user:pa/ss@cam/1", True),
        ("rtsp://user:pa ss@cam/1", True),
        ("rtsp://user:100%@cam/1", True),
        ("http://cam/x?pwd=a#b", True),
        ("rtsp://user:pa%40ss@cam/1", False),
        ("rtsp://user:pass@cam/1?x=2", False),
        ("rtsp://cam/1", False),
    ],
)
def test_signs_that_must_be_encoded_are_known(address, needed):
    assert needs_encoding(address) == needed


def test_long_texts_take_no_time():
    for text in ("_pass" * 10_000, "rtsp://h" + "/a:b" * 10_000, "/user=" * 10_000, "a" * 20_000):
        assert len(redacted(text)) <= len(text) + 3 * text.count("=")


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

    with StderrCapture() as complaints:
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
