"""A command of ours as a child that dies with its parent: the server or the router of a machine, below a replica."""

from __future__ import annotations

import collections
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from parallel_infer.process.group_signals import GROUP_SIGNALS
from parallel_infer.process.interpreter import die_with_parent

_ROOT = str(Path(__file__).resolve().parents[2])  # so that a checkout that is not installed works too
_LAST_LINES = 20  # of what it says on stderr, for an error


class Child:
    """Started by its constructor: `parallel-infer WORDS`. What it says on stderr goes to ours as well."""

    def __init__(self, words: Sequence[str]) -> None:
        # The kernel kills a child when the *thread* that started it ends, so that has to be one that lives as long.
        self._thread = ThreadPoolExecutor(1, "child")
        self._process = self._thread.submit(_start, words).result()
        self._said: collections.deque[str] = collections.deque(maxlen=_LAST_LINES)
        self._reader = threading.Thread(target=self._pass_on, daemon=True, name="stderr of the child")
        self._reader.start()

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def line(self) -> str:
        """The next line of its standard output, waited for; empty when it has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def ending(self) -> str:
        """Why it ended, as far as it said so: waits for the end."""
        code = self._process.wait()
        self._reader.join(1.0)
        return f"exit code {code}: {' '.join(self._said).strip() or 'it said nothing'}"

    def ask_to_end(self) -> None:
        """SIGTERM: it answers what it has admitted."""
        if self.is_alive:
            self._process.send_signal(signal.SIGTERM)

    def close(self, patience: float) -> None:
        """Wait `patience` seconds for its end, then kill it."""
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(1.0)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._thread.shutdown(wait=False)

    def _pass_on(self) -> None:
        stream: IO[str] | None = self._process.stderr
        assert stream is not None
        with stream:
            for line in stream:
                self._said.append(line.strip())
                print(line, end="", file=sys.stderr, flush=True)


def main() -> None:
    """`python -m parallel_infer.fleet.child PARENT WORDS`."""
    parent, *words = sys.argv[1:]
    die_with_parent(int(parent))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, GROUP_SIGNALS)
    sys.argv = ["parallel-infer", *words]
    runpy.run_module("parallel_infer", run_name="__main__", alter_sys=True)


def _start(words: Sequence[str]) -> subprocess.Popen[str]:
    python_path = os.pathsep.join([_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "parallel_infer.fleet.child", str(os.getpid()), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        process_group=0,  # a signal to Ray's processes is not one to it
        env={**os.environ, "PYTHONPATH": python_path},
    )


if __name__ == "__main__":
    main()
