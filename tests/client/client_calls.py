"""What several client tests use."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor


def payload_of(answer):
    """The payload that the server echoed."""
    return answer.tensors["payload"].tobytes()


def in_thread(work):
    """Run a call in a thread; returns what joins it and gives its outcome."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(work)
    pool.shutdown(wait=False)
    return lambda: future.result(10)
