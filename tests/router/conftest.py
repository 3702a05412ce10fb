"""Routers and members that are ended with their test."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.router.processes import Echo, Process, Router, closing_all


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    with closing_all() as started:
        yield started


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a short name, for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="pi-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def echo(place: Path, processes: list[Process]) -> Callable[..., Echo]:
    """Starts members: `echo(name, seconds, models)`."""

    def start(name: str, seconds: float = 0.0, models: tuple[str, ...] = ("echo",)) -> Echo:
        member = Echo(place, name, seconds, models)
        processes.append(member)
        return member

    return start


@pytest.fixture
def route(place: Path, processes: list[Process]) -> Callable[..., Router]:
    """Starts routers with options of `route`."""

    def start(*options: str, name: str = "router") -> Router:
        router = Router(place, *options, name=name)
        processes.append(router)
        return router

    return start
