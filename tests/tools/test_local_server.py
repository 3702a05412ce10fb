"""A server of one's own does not outlive the command that started it."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil
import pytest

_COMMAND = """
import sys
from parallel_infer.tools.local_server import local_server

with local_server("--model", "classifier=zoo:classifier", "--provider", "cpu", stderr=sys.stderr) as server:
    print(server.process.pid, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_command_that_is_ended_stops_its_server(number):
    with subprocess.Popen(
        [sys.executable, "-c", _COMMAND], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout is not None
        server = psutil.Process(int(command.stdout.readline()))
        command.send_signal(number)
        command.wait(60)
    assert not server.is_running()


def test_with_nohup_it_outlasts_its_terminal():
    with subprocess.Popen(
        ["nohup", sys.executable, "-c", _COMMAND], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout is not None
        server = psutil.Process(int(command.stdout.readline()))
        command.send_signal(signal.SIGHUP)
        assert server.is_running()
        command.communicate()
    assert command.returncode == 0
    assert not server.is_running()
