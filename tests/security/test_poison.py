"""A picture that kills the decoder, sent again and again amid good ones."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import pytest

from parallel_infer import Client
from parallel_infer.errors import Poison
from tests.security.aborting import MARKER

SERVER = Path(__file__).with_name("aborting_server.py")
TIMES = 100
COPIES = 60  # fewer than one client's part of the queue while three are active


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Address and log of a server whose decoder aborts at the marker."""
    folder = tmp_path_factory.mktemp("s")
    log = folder / "log"
    command = [sys.executable, str(SERVER), f"ipc://{folder}/s"]
    with log.open("wb") as stderr, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr) as process:
        line = process.stdout.readline()
        assert line, log.read_text()
        yield json.loads(line)["addresses"][0], log
        process.terminate()
        assert process.wait(30) == 0, log.read_text()


@pytest.fixture
def good(pictures):
    picture = cv2.resize(cv2.imread(str(pictures / "chelsea.png")), (160, 120))
    return cv2.imencode(".png", picture)[1].tobytes()


def deaths(log):
    return log.read_text().count(" died (exit code -6)")


def test_at_most_two_workers_die_of_one_picture(server, good):
    address, log = server
    poison, before = good + MARKER, deaths(log)
    answers, enough = [], threading.Event()

    def others():
        with Client(address, timeout=60) as client:
            while not enough.is_set():
                answers.extend(client.infer_many("classifier", [good] * 8))

    traffic = threading.Thread(target=others)
    traffic.start()
    try:
        with Client(address, timeout=60) as client:
            for _ in range(TIMES):
                with pytest.raises(Poison):
                    client.infer("classifier", poison)
            assert deaths(log) - before <= 2, log.read_text()
            with pytest.raises(Poison):  # another picture has its own two lives
                client.infer("classifier", poison + b"!")
            assert deaths(log) - before <= 4, log.read_text()
    finally:
        enough.set()
        traffic.join()
    assert answers
    assert not [answer for answer in answers if isinstance(answer, Exception)]


def test_copies_that_are_inside_already_do_no_further_harm(server, good):
    address, log = server
    with Client(address, timeout=60) as client:
        known, before = client.status()["gateway"]["known_poison"], deaths(log)
        jobs = [client.submit("classifier", good + b"two" + MARKER) for _ in range(COPIES)]
        assert {repr(job.exception(60)) for job in jobs if not isinstance(job.exception(60), Poison)} == set()
        assert len(client.infer_many("classifier", [good] * 4)) == 4
        gateway = client.status()["gateway"]
        assert gateway["known_poison"] == known + 1
        assert gateway["held"] == 0 == gateway["pending"]
    assert deaths(log) - before <= 4  # two for each worker that had a copy when the first verdict came
