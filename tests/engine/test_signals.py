"""Signals: the supervisor takes them, and nobody else does, whoever they were sent to and whenever."""

from __future__ import annotations

import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from parallel_infer.process.group_signals import GROUP_SIGNALS
from tests.engine.graphs import job
from tests.engine.serving import Server, eventually, short_folder
from tests.engine.test_process_life import DOOR

# What the supervisor may get as well: it acts upon it, or leaves it.
HARMLESS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGALRM, signal.SIGCONT)


def family(server: Server) -> list[psutil.Process]:
    """Everybody below the supervisor, the resource tracker too."""
    return server.supervisor.children(recursive=True)


def send(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        process.send_signal(number)


def test_no_signal_of_the_group_ends_or_stops_a_child(start_server):
    server = start_server(toml=DOOR)
    before = family(server)
    for number in sorted(GROUP_SIGNALS):
        send(before, number)
    send([server.supervisor], signal.SIGHUP)
    with server.client() as client:
        for value in range(8):
            assert client.infer("work", job(value=value)).tensors["value"] == [value]
        processes = client.status()["processes"]
    assert {name: facts["restarts"] for name, facts in processes.items() if facts["restarts"]} == {}
    assert set(before) <= set(family(server)), "a reload looks into files besides"
    assert psutil.STATUS_STOPPED not in [process.status() for process in before]


@pytest.mark.parametrize("number", HARMLESS, ids=lambda number: number.name)
def test_a_signal_to_the_whole_group_leaves_everybody_alive(start_server, number):
    server = start_server(toml=DOOR)
    before = family(server)
    send([server.supervisor, *before], number)
    with server.client() as client:
        assert client.infer("work", job(value=5)).tensors["value"] == [5]
    assert set(before) <= set(family(server)), "a reload looks into files besides"


@pytest.fixture
def starting(tensor_models: Path) -> Iterator[Server]:
    """A server that has just begun to start."""
    folder = short_folder()
    (folder / "server.toml").write_text(DOOR.format(folder=folder, models=tensor_models))
    server = Server(folder, "--config", str(folder / "server.toml"))
    try:
        eventually(server.run_directories)
        yield server
    finally:
        server.close()
        shutil.rmtree(folder)


def test_hangups_all_through_the_start_kill_nobody(starting):
    def hang_up() -> bool:
        for process in [starting.supervisor, *family(starting)]:
            try:
                process.send_signal(signal.SIGHUP)
            except psutil.NoSuchProcess:  # one that looked into a model file
                continue
        assert starting.process.stdout is not None
        return bool(select.select([starting.process.stdout], [], [], 0.005)[0])

    eventually(hang_up, 60)
    starting.wait_until_ready()
    with starting.client() as client:
        assert client.infer("work", job(value=5)).tensors["value"] == [5]
        assert not any(facts["restarts"] for facts in client.status()["processes"].values())
    starting.check_clean_end()


def test_sigquit_ends_a_server_in_good_order(start_server):
    server = start_server(toml=DOOR)
    send(family(server), signal.SIGQUIT)
    assert server.stop(signal.SIGQUIT) == 0
    assert server.segments() == []


_TAKEN = """
import os, select, signal
from parallel_infer.supervisor.signals import Signals

def readable(signals):
    return bool(select.select([signals.descriptor], [], [], 0)[0])

def send(number):
    os.kill(os.getpid(), number)
"""


def in_a_process_of_its_own(code: str) -> None:
    """Signals that a test sends itself may not meet the libraries that other tests have loaded into this process."""
    ran = subprocess.run([sys.executable, "-c", _TAKEN + code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_signal_that_is_not_acted_upon_yet_wakes_once():
    in_a_process_of_its_own("""
with Signals() as signals:
    signals.calm()
    for _ in range(2):
        send(signal.SIGHUP)
        assert readable(signals)
        assert not signals.ending
        assert not readable(signals), "whoever waits for an end would spin"
    assert signals.any
    assert signals.take_reload()
    assert not signals.take_reload()
    assert not signals.any
""")


def test_a_signal_without_meaning_asks_for_nothing():
    in_a_process_of_its_own("""
with Signals() as signals:
    send(signal.SIGUSR1)
    assert not signals.any
""")


def test_an_end_interrupts_until_somebody_looks():
    in_a_process_of_its_own("""
with Signals() as signals:
    try:
        send(signal.SIGTERM)
    except KeyboardInterrupt:
        signals.forget()
    else:
        raise AssertionError("nobody was interrupted")
    signals.calm()
    send(signal.SIGTERM)
    assert signals.ending
""")


_CHILD = """
import os, signal, sys
from parallel_infer.process.group_signals import GROUP_SIGNALS, leave_signals_to_parent
if "held" in sys.argv:
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) >= GROUP_SIGNALS
leave_signals_to_parent()
for number in GROUP_SIGNALS:
    os.kill(os.getpid(), number)
print("alive")
"""


def test_a_child_is_deaf_from_its_first_instruction_on():
    from parallel_infer.process.group_signals import starting_child

    with starting_child():
        child = subprocess.Popen([sys.executable, "-c", _CHILD, "held"], stdout=subprocess.PIPE, text=True)
    for number in GROUP_SIGNALS:
        child.send_signal(number)
    assert child.communicate(timeout=60)[0] == "alive\n"
    assert child.returncode == 0
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & GROUP_SIGNALS
