"""A server below a replica: it says when it is ready and why it is not, answers what it has, and never outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest

from parallel_infer.fleet.child import Child
from parallel_infer.shm.segment import sweep

PARENT = """
import sys
from parallel_infer.fleet.child import Child
child = Child(["serve", "--model", "a=zoo:classifier", "--bind", sys.argv[1], "--json",
               "--instances", "1", "--shared-memory-mb", "32", "--decode-workers", "1", "--postprocess-workers", "1"])
print(child.line(), end="", flush=True)
sys.stdin.read()
"""


def test_a_command_that_fails_says_why(capfd: pytest.CaptureFixture[str]) -> None:
    child = Child(["serve", "--bind", "tcp://nowhere:1"])
    assert child.line() == ""
    assert "exit code 2: " in (why := child.ending())
    assert "'nowhere' is neither an IP address nor a network interface" in why
    assert "nowhere" in capfd.readouterr().err
    child.close(1.0)
    assert not child.is_alive


def test_it_ends_when_it_is_asked_to() -> None:
    child = Child(["serve", "--print-config"])
    assert child.line()
    child.ask_to_end()
    child.close(30.0)
    assert not child.is_alive


@pytest.mark.slow  # starts a server
def test_a_server_dies_with_the_process_that_started_it() -> None:
    address = f"ipc://@parallel-infer-test-{os.getpid()}"
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert '"ready": true' in parent.stdout.readline()
        (server,) = psutil.Process(parent.pid).children()
        everybody = [server, *server.children()]
        assert len(everybody) > 4
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        _, alive = psutil.wait_procs(everybody, timeout=60)
        sweep()  # as the next server on the machine does
    assert alive == []
