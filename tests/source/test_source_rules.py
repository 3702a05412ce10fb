"""The packages keep the rules of source_rules.py, and each rule can tell bad text from good."""

from pathlib import Path

import pytest

from tests.source.source_rules import (
    RULES,
    TEST_RULES,
    Rule,
    Source,
    engine_knows_no_stage,
    every_test_asserts,
    foreign_things_have_a_home,
    nothing_is_unpickled,
    only_public_names_are_tested,
    pipes_carry_bytes,
    processes_are_spawned,
    views_pin_their_mapping,
)

ROOT = Path(__file__).parents[2]
ENGINE, STAGE, TEST = "parallel_infer/gateway.py", "stages/decode.py", "tests/test_it.py"

BAD = [
    (nothing_is_unpickled, ENGINE, "import pickle"),
    (nothing_is_unpickled, ENGINE, "import marshal as m"),
    (nothing_is_unpickled, ENGINE, "from shelve import open"),
    (nothing_is_unpickled, ENGINE, "def f():\n    from pickle import loads"),
    (nothing_is_unpickled, ENGINE, "import importlib\nimportlib.import_module('pickle')"),
    (nothing_is_unpickled, ENGINE, "__import__('pickle')"),
    (nothing_is_unpickled, ENGINE, "from multiprocessing.reduction import ForkingPickler"),
    (nothing_is_unpickled, ENGINE, "eval('1')"),
    (nothing_is_unpickled, ENGINE, "import builtins\nbuiltins.exec('1')"),
    (nothing_is_unpickled, ENGINE, "run = exec"),
    (nothing_is_unpickled, ENGINE, "import yaml\nyaml.load('a', yaml.SafeLoader)"),
    (nothing_is_unpickled, ENGINE, "from yaml import unsafe_load as read\nread('a')"),
    (nothing_is_unpickled, ENGINE, "socket.recv_pyobj()"),
    (nothing_is_unpickled, ENGINE, "send = socket.send_pyobj"),
    (nothing_is_unpickled, STAGE, "import numpy as np\nnp.load('a.npy', allow_pickle=True)"),
    (pipes_carry_bytes, ENGINE, "connection.recv()"),
    (views_pin_their_mapping, "parallel_infer/shm/ring.py", "import numpy as np\nnp.ndarray((2,), np.uint8, buffer=b)"),
    (views_pin_their_mapping, STAGE, "import numpy\nnumpy.ndarray((2,), 'u1', b)"),
    (views_pin_their_mapping, STAGE, "from numpy import ndarray as Array\nArray(shape=2, buffer=b)"),
    (views_pin_their_mapping, STAGE, "import numpy as np\nnp.ndarray(**layout)"),
    (processes_are_spawned, ENGINE, "import multiprocessing\nmultiprocessing.Process()"),
    (processes_are_spawned, ENGINE, "import multiprocessing as mp\nmp.Queue()"),
    (processes_are_spawned, ENGINE, "from multiprocessing import Pool"),
    (processes_are_spawned, ENGINE, "from multiprocessing.pool import Pool"),
    (processes_are_spawned, ENGINE, "from multiprocessing.context import ForkProcess"),
    (processes_are_spawned, ENGINE, "import multiprocessing as mp\nmp.set_start_method('spawn')"),
    (processes_are_spawned, ENGINE, "import multiprocessing as mp\nmp.get_context('fork')"),
    (processes_are_spawned, ENGINE, "from multiprocessing import get_context\nget_context('spawn').Process()"),
    (processes_are_spawned, ENGINE, "from multiprocessing.context import SpawnProcess"),
    (processes_are_spawned, ENGINE, "import subprocess\nsubprocess.run([])"),
    (processes_are_spawned, ENGINE, "from subprocess import Popen\nPopen([])"),
    (processes_are_spawned, ENGINE, "from multiprocessing import get_context\nget_context(method)"),
    (processes_are_spawned, ENGINE, "import os\nos.fork()"),
    (processes_are_spawned, ENGINE, "from os import fork"),
    (processes_are_spawned, STAGE, "from concurrent.futures import ProcessPoolExecutor"),
    (engine_knows_no_stage, ENGINE, "import stages"),
    (engine_knows_no_stage, ENGINE, "import stages.decode as d"),
    (engine_knows_no_stage, ENGINE, "def f():\n    from stages.tasks import Task"),
    (engine_knows_no_stage, "parallel_infer/cli/serve.py", "from ...stages import decode"),
    (foreign_things_have_a_home, ENGINE, "import zmq"),
    (foreign_things_have_a_home, ENGINE, "def f():\n    import zmq.asyncio"),
    (foreign_things_have_a_home, STAGE, "from zmq import Context"),
    (foreign_things_have_a_home, ENGINE, "from multiprocessing import shared_memory"),
    (foreign_things_have_a_home, STAGE, "from multiprocessing.shared_memory import SharedMemory"),
    (foreign_things_have_a_home, ENGINE, "import onnxruntime as ort"),
    (foreign_things_have_a_home, "stages/infer.py", "from onnxruntime import InferenceSession"),
    (only_public_names_are_tested, TEST, "client._idle"),
    (only_public_names_are_tested, TEST, "from parallel_infer.cli.models import _loaded"),
    (only_public_names_are_tested, TEST, "monkeypatch.setattr(server, '_stamp', stamp)"),
    (only_public_names_are_tested, TEST, "monkeypatch.setattr('parallel_infer.keys.server._stamp', stamp)"),
    (every_test_asserts, TEST, "def test_it():\n    run()\ndef test_that():\n    print(1)\n\ndef test_x(): pass"),
]

GOOD = [
    (nothing_is_unpickled, ENGINE, "model.eval()\ncursor.exec('x')\nimport yaml\nyaml.safe_load('a')"),
    (nothing_is_unpickled, STAGE, "import numpy as np\nnp.load('a.npy', allow_pickle=False)"),
    (pipes_carry_bytes, ENGINE, "connection.recv_bytes()"),
    (pipes_carry_bytes, "parallel_infer/ipc/channel.py", "socket.recv()"),
    (views_pin_their_mapping, STAGE, "import numpy as np\nnp.frombuffer(buffer=b)\nnp.ndarray((2, 3), np.uint8)"),
    (processes_are_spawned, ENGINE, "from multiprocessing.connection import Connection, wait\nwait([])"),
    (processes_are_spawned, ENGINE, "import multiprocessing.connection\nmultiprocessing.connection.wait([])"),
    (processes_are_spawned, ENGINE, "import subprocess\nsubprocess.DEVNULL"),
    (processes_are_spawned, "parallel_infer/process/interpreter.py", "import subprocess\nsubprocess.Popen([])"),
    (
        engine_knows_no_stage,
        ENGINE,
        "import importlib\nimportlib.import_module(name)\nfrom parallel_infer import stages_of",
    ),
    (engine_knows_no_stage, STAGE, "from stages.tasks import Task"),
    (foreign_things_have_a_home, "parallel_infer/ipc/channel.py", "import zmq"),
    (foreign_things_have_a_home, "parallel_infer/client/connection.py", "import zmq.asyncio"),
    (
        foreign_things_have_a_home,
        "parallel_infer/shm/segment.py",
        "from multiprocessing.shared_memory import SharedMemory",
    ),
    (foreign_things_have_a_home, "stages/recognise/trial.py", "import onnxruntime"),
    (foreign_things_have_a_home, ENGINE, "import onnxruntime_ep_openvino"),
    (only_public_names_are_tested, TEST, "self._mine\nsuper()._mine\nos._exit(0)\nplan._replace(a=1)\nx.__name__"),
    (only_public_names_are_tested, TEST, "monkeypatch.setattr(server, 'stamp', '_value')\nfrom a import b as _b"),
    (
        every_test_asserts,
        TEST,
        "def test_it():\n    assert a\ndef test_that():\n    with raises(E): f()",
    ),
]


def named(rule: object) -> str | None:
    return getattr(rule, "__name__", None)


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    paths = [path for package in ("parallel_infer", "stages") for path in (ROOT / package).rglob("*.py")]
    return [Source.parse(path.relative_to(ROOT).as_posix(), path.read_text()) for path in sorted(paths)]


@pytest.mark.parametrize("rule", TEST_RULES, ids=named)
def test_tests_keep(rule: Rule) -> None:
    paths = sorted((ROOT / "tests").rglob("*.py"))
    sources = [Source.parse(path.relative_to(ROOT).as_posix(), path.read_text()) for path in paths]

    violations = [str(violation) for source in sources for violation in rule(source)]

    assert not violations, f"{rule.__doc__}\n" + "\n".join(violations)


@pytest.mark.parametrize("rule", RULES, ids=named)
def test_packages_keep(rule: Rule, sources: list[Source]) -> None:
    assert {source.path for source in sources} >= {"parallel_infer/__init__.py", "stages/__init__.py"}

    violations = [str(violation) for source in sources for violation in rule(source)]

    assert not violations, f"{rule.__doc__}\n" + "\n".join(violations)


@pytest.mark.parametrize(("rule", "path", "text"), BAD, ids=named)
def test_bad_text_is_found_where_it_stands(rule: Rule, path: str, text: str) -> None:
    lines = {violation.line for violation in rule(Source.parse(path, text))}

    assert len(text.splitlines()) in lines  # the last line of each is the bad one


@pytest.mark.parametrize(("rule", "path", "text"), GOOD, ids=named)
def test_good_text_passes(rule: Rule, path: str, text: str) -> None:
    assert list(rule(Source.parse(path, text))) == []


def test_every_rule_is_tried_with_bad_and_with_good_text() -> None:
    assert {rule for rule, *_ in BAD} == {rule for rule, *_ in GOOD} == {*RULES, *TEST_RULES}
