"""A plain FastAPI handler: no batches, the model called in a small pool of threads per process."""
# mypy: disable-error-code="import-not-found, untyped-decorator, no-any-return"

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import anyio.to_thread
import uvicorn
from fastapi import FastAPI, Request
from work import Setup, Work


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the model; as many threads as keep the cores busy, instead of FastAPI's forty."""
    setup = Setup.from_environment()
    app.state.work = Work(setup)
    anyio.to_thread.current_default_thread_limiter().total_tokens = max(2, len(os.sched_getaffinity(0)))
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
async def predict(request: Request) -> dict[str, Any]:
    payload = await request.body()
    work: Work = app.state.work
    answers = await anyio.to_thread.run_sync(work.answers, [payload])
    return answers[0]


if __name__ == "__main__":
    setup = Setup.from_environment()
    uvicorn.run(
        "servers.fastapi_server:app",
        host="127.0.0.1",
        port=setup.port,
        workers=setup.workers,
        log_level="warning",
        access_log=False,
        limit_concurrency=max(1, setup.queue // setup.workers),
    )
