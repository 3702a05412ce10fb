"""What decoding libraries say on standard error becomes lines of the log."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from parallel_infer.process.logs import MOST
from tests.pictures.picture_samples import encoded, photo, png_chunk, png_with

LOUD = png_with(encoded(".png", photo()), png_chunk(b"iCCP", b"x\0\0short"))  # libpng warns of the colour profile
CONFIG = """
bind = ["ipc://{folder}/door"]
provider = "cpu"
threads = 1
decode_workers = 1
postprocess_workers = 1
shared_memory_mb = 32
max_payload_mb = 1
log_format = "{{}}"
[models.classifier]
path = "zoo:classifier"
"""


PROGRAM = """
import logging, sys, threading
from parallel_infer import read_picture
if sys.argv[2] == "log":
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
print("mine", file=sys.stderr)
print(read_picture(sys.argv[1]).shape)
print("mine too", file=sys.stderr)
"""


def test_a_loud_library_is_silent_in_a_users_program_that_wants_no_log(tmp_path: Path) -> None:
    (tmp_path / "loud.png").write_bytes(LOUD)
    said = {
        how: subprocess.run(
            [sys.executable, "-c", PROGRAM, tmp_path / "loud.png", how], capture_output=True, text=True, check=True
        ).stderr.splitlines()
        for how in ("still", "log")
    }
    assert said["still"] == ["mine", "mine too"]
    assert said["log"][1].startswith("parallel_infer.pictures: a library says: libpng warning: iCCP")


def test_a_loud_library_is_logged_as_json_and_not_for_ever(start_server: Any) -> None:
    server = start_server(toml=CONFIG.replace("{{}}", "json"))
    with server.client() as client:
        answers = client.infer_many("classifier", [LOUD] * 100)
    assert all(len(answer) > 0 for answer in answers)
    server.check_clean_end()
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]  # every line is an object
    said = [line for line in lines if "a library says: libpng warning: iCCP" in line["event"]]
    assert len(said) >= 1
    assert len(said) <= 3 * MOST  # periods of 10 s
    assert {line["process"] for line in said} == {"decode-0"}


def test_a_loud_library_is_logged_as_text(start_server: Any) -> None:
    server = start_server(toml=CONFIG.replace("{{}}", "text"))
    with server.client() as client:
        client.infer("classifier", LOUD)
    server.check_clean_end()
    lines = [line for line in server.log.read_text().splitlines() if "libpng" in line]
    assert len(lines) == 1
    assert "INFO    decode-0: a library says: libpng warning: iCCP" in lines[0]


SCRIPT = """
import os
from parallel_infer.process.logs import start_logging
from parallel_infer.process.native_output import NativeOutput
start_logging("json", "info", "test")
native = NativeOutput()
os.write(2, b"one\\ntwo \\x1b[31m red\\n" + b"x" * 1000)
native.log()
for _ in range(100):
    try:
        os.write(2, b"y" * 60000)  # a library does not wait either
    except BlockingIOError:
        pass
native.log()
native.log()
"""


def test_lines_are_plain_short_and_never_wait_for_room() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60)
    events = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert events[0] == "a library says: one"
    assert events[1] == "a library says: two ?[31m red"
    assert events[2] == "a library says: " + "x" * 300
    assert events[3] == "a library says: " + "y" * 300
    assert len(events) == 4


def test_a_loud_library_is_not_heard_where_pictures_are_saved(start_server: Any, tmp_path: Path) -> None:
    server = start_server(toml=CONFIG.replace("{{}}", "text"))
    (tmp_path / "loud.png").write_bytes(LOUD)
    command = ["infer", "classifier", "--server", server.address, "--save", tmp_path / "out", tmp_path / "loud.png"]
    run = subprocess.run(
        [sys.executable, "-m", "parallel_infer", *map(str, command)], capture_output=True, text=True, check=True
    )
    assert run.stderr == ""
    assert (tmp_path / "out" / "loud.png").exists()
