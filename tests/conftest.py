"""What every test gets: the shipped models and pictures, and a check that it leaves nothing behind."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, settings

import parallel_infer
from tests.engine import graphs
from tests.engine.serving import Server, running, short_folder

# How long an example takes says how busy the machine is.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")

# Servers of tests start by the hundred: only the tests of trials let them try settings.
os.environ["PARALLEL_INFER_TRIAL"] = "0"
SEGMENTS = Path("/dev/shm")
# Whoever runs the tests in the background or under nohup ignores these, and every process started from here would too.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.pthread_sigmask(signal.SIG_SETMASK, [])
PREFIX = "pinfer-"
GRACE = 2.0  # seconds for what is already ending to end; what was left behind does not go away by itself
PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(scope="session")
def zoo() -> Path:
    """The folder of the shipped models."""
    return Path(parallel_infer.__file__).parent / "zoo"


@pytest.fixture(scope="session")
def pictures(zoo: Path) -> Path:
    """The folder of the shipped pictures."""
    return zoo / "pictures"


@pytest.fixture(scope="session")
def expected(pictures: Path) -> dict[str, Any]:
    """What the shipped models find in the shipped pictures, by file name."""
    answers: dict[str, Any] = json.loads((pictures / "expected.json").read_text())
    return answers


@pytest.fixture(scope="session", autouse=True)
def _adopt_orphans() -> None:
    """Processes whose parent died become ours instead of init's, so that the check below sees them."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


@pytest.fixture(autouse=True)
def _blocks_no_signal() -> Iterator[None]:
    """`serve` holds SIGHUP back from its first line on; where a test calls it in this process, it must not last."""
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(_adopt_orphans: None) -> Iterator[None]:
    """Fail a test after which a segment or a child process is there that was not there before.

    Being autouse this is set up before, and torn down after, all other fixtures of the test. Fixtures of a wider scope
    stand outside: what they start belongs to them.
    """
    segments, children = _segments(), _children()
    yield
    processes = _end_of(_children() - children)
    left = _left_in(segments)
    assert not processes, f"left running (and now killed): {processes}"
    assert not left, f"left in {SEGMENTS}: {sorted(left)}"


def _children() -> set[psutil.Process]:
    """Our children, adopted ones too; not the resource tracker, which lives as long as we do."""
    return {child for child in psutil.Process().children() if not _is_resource_tracker(child)}


def _is_resource_tracker(process: psutil.Process) -> bool:
    try:
        return any("multiprocessing.resource_tracker" in argument for argument in process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def _end_of(processes: set[psutil.Process]) -> list[str]:
    """Wait for processes that are ending; kill and describe the others."""
    _, alive = psutil.wait_procs(list(processes), timeout=GRACE)
    described = [f"{process.pid} {' '.join(process.cmdline())}" for process in alive]
    for process in alive:
        process.kill()
    psutil.wait_procs(alive)
    return described


def _segments() -> set[str]:
    return {path.name for path in SEGMENTS.glob(f"{PREFIX}*")}


def _left_in(before: set[str]) -> set[str]:
    """New segments that are ours, once those of a server that is just stopping had time to go."""
    deadline = time.monotonic() + GRACE
    while new := _segments() - before:
        new -= _held_by_others()
        new &= _segments()  # the look at every process takes a while: a server of somebody else's may have ended
        # what this process still maps nobody else will remove, and the test is over
        if not new or new & _held_by(os.getpid()) or time.monotonic() > deadline:
            return new
        time.sleep(0.02)
    return set()


def _held_by_others() -> set[str]:
    """Segments in use by processes that are neither we nor descend from us: another run of these tests, a server."""
    family = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
    return {name for pid in psutil.pids() if pid not in family for name in _held_by(pid)}


def _held_by(pid: int) -> set[str]:
    """Segments that a process maps or, as the mark of a run, keeps open."""
    marker = f"{SEGMENTS}/{PREFIX}"
    try:
        places = Path(f"/proc/{pid}/maps").read_text().splitlines()
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                places.append(str(descriptor.readlink()))
    except OSError:  # it ended, or belongs to another user
        return set()
    return {place.split(f"{SEGMENTS}/")[1].split()[0] for place in places if marker in place}


# --- servers ----------------------------------------------------------------------------------------------------------

StartServer = Callable[..., Server]
SERVER = """
bind = ["ipc://{folder}/door", "tcp://127.0.0.1:0"]
provider = "cpu"
threads = 1
decode_workers = 2
postprocess_workers = 1
shared_memory_mb = 64
lent_memory_mb = 32
max_payload_mb = 8
{more}
[models.pair]
path = "{models}/pair.onnx"
[models.fixed]
path = "{models}/fixed.onnx"
[models.work]
path = "{models}/work.onnx"
max_batch_size = 4
[models.narrow]
path = "{models}/fixed.onnx"
queue_size = 8
"""


@pytest.fixture(scope="session")
def tensor_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the generated models: pair, fixed and work (tests.engine.graphs)."""
    folder = tmp_path_factory.mktemp("models")
    for make in (graphs.pair, graphs.fixed, graphs.work):
        make(folder / f"{make.__name__}.onnx")
    return folder


def _configured(folder: Path, models: Path, more: str) -> list[str]:
    """The arguments of a server of the generated models."""
    config = folder / "server.toml"
    config.write_text(SERVER.format(folder=folder, models=models, more=more))
    return ["--config", str(config)]


@pytest.fixture(scope="session")
def server(_adopt_orphans: None, tensor_models: Path) -> Iterator[Server]:
    """A server of the generated models and the shipped detector, shared: tests leave it as they found it."""
    folder = short_folder()
    more = '[models.detector]\npath = "zoo:detector"\n'
    with running(Server(folder, *_configured(folder, tensor_models, more))) as server:
        yield server


@pytest.fixture(name="short_folder")
def _short_folder() -> Iterator[Path]:
    """A folder with a short name, for sockets."""
    folder = short_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def start_server(tensor_models: Path) -> Iterator[StartServer]:
    """Starts servers of a test's own: `start_server(more TOML, *further arguments)`, or `models=False` for none.

    Those that still run at the end are stopped, and must end well.
    """
    servers: list[Server] = []

    def start(more: str = "", *arguments: str, toml: str | None = None) -> Server:
        folder = short_folder()
        if toml is None:
            given = _configured(folder, tensor_models, more)
        else:
            (folder / "server.toml").write_text(toml.format(folder=folder, models=tensor_models))
            given = ["--config", str(folder / "server.toml")]
        server = Server(folder, *given, *arguments)
        servers.append(server)
        server.wait_until_ready()
        return server

    yield start
    try:
        for server in servers:
            if server.process.poll() is None:
                server.check_clean_end()
    finally:
        for server in servers:
            server.close()
            shutil.rmtree(server.folder, ignore_errors=True)
