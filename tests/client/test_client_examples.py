"""The example programs, run as users run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from parallel_infer import protocol
from parallel_infer.answers.answer import result_dict
from tests.answers.test_answer import NAMES, OBJECTS

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(example, *arguments):
    command = [sys.executable, str(EXAMPLES / example), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@pytest.fixture
def answering(server):
    """A server that finds a dog and a person, for clients with an empty delimiter frame too."""

    def serve(received):
        request = received.request
        result = result_dict("detect", OBJECTS, NAMES, width=100, height=80)
        answer = protocol.Answer(id=request.id, answer=msgspec.Raw(msgspec.msgpack.encode(result)))
        server.reply(received.client, answer)

    server.objects = serve
    return server


def test_minimal_client(answering, pictures):
    answering.infer = answering.objects
    ran = run("minimal_client.py", pictures / "coffee.png", "--address", answering.address)
    assert ran.stderr == ""
    assert ran.stdout.splitlines() == ["0.90 dog at 20, 40, 20 x 40 pixels", "0.50 person at 50, 40, 100 x 80 pixels"]
    received = answering.next()
    assert received.request.format == "objects"
    assert received.payload == (pictures / "coffee.png").read_bytes()


def test_minimal_client_tells_errors(server, pictures):
    ran = run(
        "minimal_client.py", pictures / "coffee.png", "--model", "fail:UNKNOWN_MODEL", "--address", server.address
    )
    assert (ran.returncode, ran.stderr) == (1, "UNKNOWN_MODEL: as asked\n")


def test_minimal_client_needs_little():
    text = (EXAMPLES / "minimal_client.py").read_text()
    imported = {line.split()[1].split(".")[0] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert imported - set(sys.stdlib_module_names) == {"zmq", "msgpack"}


def test_async_client(server, pictures):
    ran = run("async_client.py", pictures, "--model", "echo", "--address", server.address)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert [line.split(":")[0] for line in ran.stdout.splitlines()] == ["astronaut.png", "chelsea.png", "coffee.png"]
    ran = run("async_client.py", pictures, "--model", "fail:POISON", "--address", server.address)
    assert (ran.returncode, ran.stdout.splitlines()[0]) == (1, "astronaut.png: POISON: as asked")
