"""Kills of every kind of process while a chain is asked: nothing is lost, mixed up or left behind.

The short form of `python benchmarks/chaos.py --client chain --kill random`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.chaos_support.faults import KINDS, Fault, Saboteur
from benchmarks.chaos_support.loads import ChainLoad, drive
from benchmarks.chaos_support.payloads import Verdict
from benchmarks.chaos_support.settle import drain
from benchmarks.chaos_support.tally import Tally
from benchmarks.chaos_support.tiles import Squares, write_models
from parallel_infer.tools.local_server import LocalServer, local_server

SETTINGS = {"RESTART_BUDGET": "100000", "LOG_LEVEL": "error"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server of a chain whose second model gives back the pixels that it gets."""
    options = write_models(tmp_path_factory.mktemp("squares"))
    workers = ("--decode-workers", "2", "--postprocess-workers", "1", "--instances", "1", "--threads", "1")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setenv(f"PARALLEL_INFER_{name}", value)
        with local_server(*options, *workers, "--provider", "cpu") as server:
            yield server


def storm(served: LocalServer, kinds: tuple[str, ...], faults: int, seed: int) -> Tally:
    """Requests without a pause until so many processes were killed; then every request that is left has to end."""
    tally, load = Tally(), ChainLoad(served.address, 60.0)
    with Saboteur(served, kinds, Fault.KILL, (0.2, 0.6), seed=seed, most=faults) as saboteur:
        drive(
            load,
            Squares(seed),
            tally,
            lambda: len(saboteur.incidents) < faults,
            8,
            lambda outcome: saboteur.answered(outcome.sent),
        )
    load.close()
    tally.leaked = drain(served)
    return tally


@pytest.mark.parametrize(("kinds", "faults"), [(("decode", "infer", "postprocess"), 4), (("dispatcher", "gateway"), 2)])
def test_no_kill_loses_a_request_or_gives_it_the_object_of_another(
    served: LocalServer, kinds: tuple[str, ...], faults: int
) -> None:
    tally = storm(served, kinds, faults, seed=faults)
    assert tally.broken(frozenset({"POISON"})) == []
    assert tally.verdicts[Verdict.RIGHT] == tally.answers > 0


@pytest.mark.slow
def test_many_kills_of_everything(served: LocalServer) -> None:
    tally = storm(served, KINDS, 100, seed=99)
    assert tally.broken(frozenset({"POISON"})) == []
    assert tally.verdicts[Verdict.RIGHT] == tally.answers > 0
