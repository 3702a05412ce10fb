"""Results at an MQTT broker: every one that is answered, in order, and no stream that waits for a broker."""

from __future__ import annotations

import gc
import json
import shutil
import socket
import subprocess
import sys
import threading

import pytest
from click.testing import CliRunner

pytest.importorskip("paho.mqtt", reason="needs paho-mqtt: pip install 'parallel-infer[mqtt]'")

from parallel_infer.cli import main
from parallel_infer.errors import ConfigError, ServerUnavailable, Unauthorized
from parallel_infer.video.broker import Broker
from parallel_infer.video.publisher import Publisher
from tests.video.conftest import FRAMES
from tests.video.mosquitto import PROGRAM, Listener, Mosquitto, free_port

TOPIC = "cameras/front"
needs_mosquitto = pytest.mark.skipif(PROGRAM is None, reason="needs mosquitto: apt install mosquitto")


def stream(server, *arguments):
    return CliRunner().invoke(main, ["stream", "--server", server.address, "detector", *map(str, arguments)])


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory):
    broker = Mosquitto(tmp_path_factory.mktemp("mosquitto"), free_port(), "allow_anonymous true").start()
    yield broker
    broker.stop()


@pytest.fixture
def listener(mosquitto):
    listener = Listener(mosquitto.port, TOPIC)
    yield listener
    listener.close()


@pytest.fixture
def stalled():
    """The port of a broker that takes the connection and then reads nothing more."""
    accepted = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            accepted.append(listener.accept()[0])
            accepted[0].recv(1024)
            accepted[0].sendall(b"\x20\x02\x00\x00")  # CONNACK: accepted

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()
        for connection in accepted:
            connection.close()


# --- the URL ----------------------------------------------------------------------------------------------------------


def test_a_url_with_everything_and_with_little():
    broker = Broker.parse("mqtts://me:p%40ss@broker.example:1234/site/cam%201")
    assert (broker.host, broker.port, broker.tls, broker.topic) == ("broker.example", 1234, True, "site/cam 1")
    assert (broker.user, broker.password) == ("me", "p@ss")
    assert "p@ss" not in repr(broker)
    assert "p%40ss" not in repr(broker)
    plain = Broker.parse("mqtt://[::1]/t")
    assert (plain.host, plain.port, plain.tls, plain.user, plain.password) == ("::1", 1883, False, None, None)
    assert Broker.parse("mqtts://host/t").port == 8883


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("broker/topic", "expected mqtt://"),
        ("http://me:hunter2@host/t", "expected mqtt://"),
        ("mqtt:///t", "expected mqtt://"),
        ("mqtt://host:0/t", "expected mqtt://"),
        ("mqtt://host:70000/t", "the host or the port is wrong"),
        ("mqtt://me:hunter#2@host/t", "write them as %40"),
        ("mqtt://host", "has no topic"),
        ("mqtt://host/", "has no topic"),
        ("mqtt://host/a/#", "nothing may follow the topic"),
        ("mqtt://host/a?b=c", "nothing may follow the topic"),
        ("mqtt://host/a/+", "results go to one topic"),
        ("mqtt://host/a/%23", "results go to one topic"),
        ("mqtt://:hunter2@host/t", "no password without a user"),
        ("mqtt://host/" + "t" * 4096, "up to 4096 are taken"),
    ],
)
def test_a_wrong_url_is_named_without_its_password(url, problem):
    with pytest.raises(ConfigError, match=problem) as refusal:
        Broker.parse(url)
    assert "hunter" not in str(refusal.value)
    assert "--publish" in str(refusal.value)


# --- a broker ---------------------------------------------------------------------------------------------------------


@needs_mosquitto
def test_every_answered_frame_is_published_as_json(server, video, mosquitto, listener):
    url = f"mqtt://127.0.0.1:{mosquitto.port}/{TOPIC}"
    result = stream(server, video, "--track", "--publish", url)
    assert result.exit_code == 0, result.output
    rows = [json.loads(listener.next()) for _ in range(FRAMES)]
    assert [row["frame"] for row in rows] == list(range(FRAMES))
    assert all(row["source"] == str(video) and "tracker_id" in row["predictions"][0] for row in rows)
    assert f"{FRAMES} results published to {url}" in result.stderr


@needs_mosquitto
def test_a_broker_that_comes_back_gets_what_waited_and_the_oldest_gave_way(tmp_path):
    broker = Mosquitto(tmp_path, free_port(), "allow_anonymous true").start()
    listener = Listener(broker.port, TOPIC)
    publisher = Publisher(Broker.parse(f"mqtt://127.0.0.1:{broker.port}/{TOPIC}"), limit=3, farewell=30.0)
    with publisher:
        publisher.add(b"first")
        assert listener.next() == b"first"
        broker.stop()
        news = until(publisher.news, lambda found: found)
        assert "the connection is lost" in news[0]
        for number in range(10):
            publisher.add(f"{number}".encode())
        listener.close()
        broker.start()
        listener = Listener(broker.port, TOPIC)
        assert [listener.next() for _ in range(3)] == [b"7", b"8", b"9"]
        assert "connected again" in until(publisher.news, lambda found: found)[-1]
    listener.close()
    broker.stop()
    assert (publisher.published, publisher.dropped, publisher.undelivered) == (4, 7, 0)
    assert publisher.summary().startswith("4 results published to mqtt://127.0.0.1:")
    assert "7 dropped, because 3 were waiting (--publish-queue)" in publisher.summary()


def until(ask, good, patience=30.0):
    """What `ask` says once it is `good`; it is asked again and again."""
    over = threading.Event()
    timer = threading.Timer(patience, over.set)
    timer.start()
    try:
        while not good(found := ask()):
            assert not over.wait(0.01), found
    finally:
        timer.cancel()
    return found


@needs_mosquitto
def test_a_login_is_needed_and_refused_by_name(server, video, tmp_path):
    passwords = tmp_path / "passwords"
    passwords.write_text("me:hunter2\n")
    hasher = shutil.which("mosquitto_passwd")
    if hasher is None:
        pytest.skip("needs mosquitto_passwd, which comes with mosquitto")
    subprocess.run([hasher, "-U", passwords], check=True)
    broker = Mosquitto(tmp_path, free_port(), "allow_anonymous false", f"password_file {passwords}").start()
    try:
        with Publisher(Broker.parse(f"mqtt://me:hunter2@127.0.0.1:{broker.port}/t"), 10) as publisher:
            publisher.add(b"one")
        assert publisher.published == 1
        for login in ("me:hunter3@", "", "you@"):
            with pytest.raises(Unauthorized, match="the broker refuses the login: Not authorized") as refusal:
                Publisher(Broker.parse(f"mqtt://{login}127.0.0.1:{broker.port}/t"), 10).__enter__()
            assert "hunter" not in str(refusal.value)
        result = stream(server, video, "--publish", f"mqtt://me:hunter3@127.0.0.1:{broker.port}/t")
        assert result.exit_code == 1
        assert "UNAUTHORIZED" in result.output
        assert "hunter" not in result.output
    finally:
        broker.stop()


@needs_mosquitto
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
@pytest.mark.filterwarnings("ignore:unclosed <ssl:ResourceWarning")  # paho-mqtt leaves the socket to the collector
def test_tls_with_a_certificate_that_is_known_and_one_that_is_not(tmp_path, monkeypatch):
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    made = ["openssl", "req", "-x509", *curve, "-nodes", "-days", "1", "-keyout", key, "-out", certificate, *subject]
    subprocess.run(made, check=True, capture_output=True)
    settings = ["allow_anonymous true", f"certfile {certificate}", f"keyfile {key}"]
    broker = Mosquitto(tmp_path, free_port(), *settings).start()
    url = Broker.parse(f"mqtts://127.0.0.1:{broker.port}/t")
    try:
        with pytest.raises(ServerUnavailable, match="no TLS with it: .*CERTIFICATE_VERIFY_FAILED"):
            Publisher(url, 10).__enter__()
        gc.collect()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with Publisher(url, 10) as publisher:
            publisher.add(b"one")
        assert publisher.published == 1
    finally:
        broker.stop()


def test_a_broker_that_reads_nothing_holds_nobody_up(stalled):
    count, limit, size = 5000, 50, 20_000
    publisher = Publisher(Broker.parse(f"mqtt://127.0.0.1:{stalled}/{TOPIC}"), limit, farewell=0.1)
    with publisher:
        for _ in range(count):
            publisher.add(bytes(size))
    assert publisher.published == 0
    assert limit <= publisher.undelivered <= limit + 20
    assert publisher.dropped + publisher.undelivered == count
    assert "not delivered" in publisher.summary()


def test_a_broker_that_is_not_there_is_named():
    port = free_port()
    with pytest.raises(ServerUnavailable, match="the broker is not reached: Connection refused") as refusal:
        Publisher(Broker.parse(f"mqtt://me:hunter2@127.0.0.1:{port}/t"), 10).__enter__()
    assert f"mqtt://***@127.0.0.1:{port}/t" in str(refusal.value)


def test_wrong_usage_and_a_missing_library_are_told_at_once(server, video, monkeypatch):
    alone = stream(server, video, "--publish-queue", 5)
    assert (alone.exit_code, "add --publish" in alone.output) == (2, True)
    wrong = stream(server, video, "--publish", "mqtt://me:hunter2@host")
    assert (wrong.exit_code, "has no topic" in wrong.output, "hunter2" in wrong.output) == (2, True, False)
    monkeypatch.delitem(sys.modules, "parallel_infer.video.publisher")
    monkeypatch.setitem(sys.modules, "paho.mqtt", None)
    missing = stream(server, video, "--publish", "mqtt://host/t")
    assert missing.exit_code == 2
    assert "pip install 'parallel-infer[mqtt]'" in missing.output
