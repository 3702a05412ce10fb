"""Ray Serve: replicas that batch with `serve.batch`, behind its HTTP proxy."""
# mypy: disable-error-code="import-not-found, untyped-decorator, attr-defined"

from __future__ import annotations

import asyncio
import signal
import threading
from typing import Any

import ray
from ray import serve
from starlette.requests import Request
from work import Setup, Work

SETUP = Setup.from_environment()


@serve.deployment(
    num_replicas=SETUP.workers,
    max_ongoing_requests=2 * SETUP.batch,  # one batch runs while the next one fills
    max_queued_requests=SETUP.queue,
    ray_actor_options={"num_cpus": 0.1},
)
class Model:
    """One replica, one copy of the model."""

    def __init__(self, setup: Setup) -> None:
        self._work = Work(setup)

    @serve.batch(max_batch_size=SETUP.batch, batch_wait_timeout_s=SETUP.delay_ms / 1000)
    async def answers(self, payloads: list[bytes]) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._work.answers, payloads)

    async def __call__(self, request: Request) -> dict[str, Any]:
        answer: dict[str, Any] = await self.answers(await request.body())
        return answer


if __name__ == "__main__":
    stopped = threading.Event()
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="warning")
    http = {"host": "127.0.0.1", "port": SETUP.port, "request_timeout_s": SETUP.timeout_ms / 1000}
    serve.start(http_options=http, logging_config={"log_level": "WARNING", "enable_access_log": False})
    serve.run(Model.bind(SETUP), name="peer", route_prefix="/predict")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    stopped.wait()
    serve.shutdown()
    ray.shutdown()
