"""What a confined process can and cannot do. Each attempt runs in a process of its own, since there is no way back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from parallel_infer.process.sandbox.landlock import restrict_files

ROOT = Path(__file__).parents[2]
CONFINE = "from parallel_infer.process.sandbox.confinement import confine_decoder; confine_decoder(1_000_000)\n"


def run(code, *arguments, before=CONFINE):
    command = [sys.executable, "-c", before + code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def has_landlock():
    landlock = "from parallel_infer.process.sandbox.landlock import restrict_files"
    code = f"import sys; {landlock}; sys.exit(bool(restrict_files([], [])))"
    return run(code, before="").returncode == 0


needs_landlock = pytest.mark.skipif(not has_landlock(), reason="this kernel has no Landlock")

FORBIDDEN = {
    "fork": "import os; os.fork()",
    "vfork": "import os; os.posix_spawn('/bin/true', ['true'], {})",
    "exec": "import os; os.execv('/bin/true', ['true'])",
    "network": "import socket; socket.socket(socket.AF_INET)",
    "network v6": "import socket; socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
    "netlink": "import socket; socket.socket(socket.AF_NETLINK)",
    "listening": "import socket; socket.socket(socket.AF_UNIX).bind('\\0pinfer-test')",
    "a signal to the parent": "import os; os.kill(os.getppid(), 0)",
    "a signal to everybody": "import os; os.kill(-1, 0)",
    "removing a file": "import os, sys; os.unlink(sys.argv[1])",
    "renaming a file": "import os, sys; os.rename(sys.argv[1], sys.argv[1] + '2')",
    "changing a mode": "import os, sys; os.chmod(sys.argv[1], 0o777)",
    "a link": "import os, sys; os.symlink('/', sys.argv[1] + '2')",
    "a folder": "import os, sys; os.mkdir(sys.argv[1] + '2')",
    "a larger limit": "import resource as r; r.setrlimit(r.RLIMIT_DATA, (r.RLIM_INFINITY, r.RLIM_INFINITY))",
    "shrinking a segment": "import os; os.ftruncate(os.open('/dev/null', os.O_RDWR), 0)",
}
FORBIDDEN_FILES = {
    "reading": "open(__import__('sys').argv[1])",
    "writing": "open(__import__('sys').argv[1], 'w')",
    "creating": "open(__import__('sys').argv[1] + '2', 'w')",
    "a new segment": "open('/dev/shm/pinfer-test', 'w')",
    "the users": "open('/etc/passwd')",
    "another process": "open('/proc/1/environ')",
    "a folder": "import os; os.listdir('/')",
}


@pytest.fixture
def secret(tmp_path):
    file = tmp_path / "secret"
    file.write_text("xyzzy")
    return file


@needs_landlock
def test_packages_installed_into_a_folder_of_any_name_are_read_and_nothing_beside_them(tmp_path):
    for name in ("tool-1.0.dist-info", "tool", "tool.libs"):
        (tmp_path / name).mkdir()
    for name in ("tool/__init__.py", "single.py", "tool.libs/libtool.so", "notes.txt"):
        (tmp_path / name).touch()
    before = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + CONFINE
    imported = run("import tool, single; open(sys.argv[1] + '/tool.libs/libtool.so')", tmp_path, before=before)
    assert imported.returncode == 0, imported.stderr
    assert "PermissionError" in run("open(sys.argv[1] + '/notes.txt')", tmp_path, before=before).stderr


def attempt(code, secret):
    """Try it confined: it must be refused, and have changed nothing."""
    confined = run(f"try:\n    {code}\nexcept (PermissionError, ValueError) as error:\n    print('refused')", secret)
    assert confined.stdout.strip() == "refused", confined.stderr
    assert confined.returncode == 0
    assert secret.read_text() == "xyzzy"
    assert list(secret.parent.iterdir()) == [secret]


@pytest.mark.parametrize("name", FORBIDDEN)
def test_is_refused(name, secret):
    attempt(FORBIDDEN[name], secret)


@needs_landlock
@pytest.mark.parametrize("name", FORBIDDEN_FILES)
def test_no_file_can_be_opened(name, secret):
    attempt(FORBIDDEN_FILES[name], secret)


WORK = """
import io, threading
import cv2, numpy as np, simplejpeg, zmq
picture = np.random.default_rng(1).integers(0, 256, (80, 120, 3), np.uint8)
for ending in (".jpg", ".png", ".webp"):
    assert cv2.imdecode(cv2.imencode(ending, picture)[1], cv2.IMREAD_COLOR).shape == picture.shape
assert simplejpeg.decode_jpeg(cv2.imencode(".jpg", picture)[1].tobytes()).shape == picture.shape
thread = threading.Thread(target=cv2.resize, args=(picture, (40, 40)))
thread.start(); thread.join()
context = zmq.Context(); socket = context.socket(zmq.DEALER); socket.linger = 0
socket.connect("ipc:///tmp/parallel-infer-nobody"); socket.poll(10); socket.close(); context.term()
print("worked")
"""


def test_the_work_goes_on():
    done = run(WORK)
    assert done.stdout.strip() == "worked", done.stderr


def test_segments_can_be_attached():
    code = (
        "import os, sys\nfrom multiprocessing import resource_tracker\nresource_tracker.register = lambda *_: None\n"
        "from multiprocessing.shared_memory import SharedMemory\n"
        "segment = SharedMemory(sys.argv[1]); segment.buf[0] = 7; segment.close()"
    )
    from parallel_infer.shm.segment import RunMark, Segment

    mark = RunMark()  # so that no other server takes it for what a dead one left
    segment = Segment.create(mark.segment_name("confined"), 4096)
    try:
        done = run(code, segment.name)
        assert done.returncode == 0, done.stderr
        assert segment.view("uint8", (1,))[0] == 7
    finally:
        segment.close()
        mark.remove()


def test_memory_is_bounded():
    done = run("import numpy as np\ntry:\n    np.ones(64 << 30, np.uint8)\nexcept MemoryError:\n    print('refused')")
    assert done.stdout.strip() == "refused", done.stderr


def test_an_abort_is_an_end_and_leaves_no_core(tmp_path):
    code = "import os, sys, resource\nassert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)\nos.abort()"
    assert run(code).returncode == -6


def test_what_the_kernel_cannot_do_is_said(monkeypatch):
    class Old:
        @staticmethod
        def syscall(*_arguments):
            return -1

    monkeypatch.setattr("parallel_infer.process.sandbox.landlock.ctypes.CDLL", lambda *_, **__: Old)
    assert restrict_files([], []) == "this kernel has no Landlock"
