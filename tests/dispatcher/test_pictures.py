"""Pictures that several jobs are about: decoded once as long as there is room, kept for no longer than needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from parallel_infer.crops import Crop, PicturePart, Selection
from tests.dispatcher.core_rig import FakeWorker, Rig, codes, crew, plan

CROP = Crop(0.0, 0.0, 1.0, 1.0, 4, 4)
CUTS = (Selection(9),)


def fan(rig: Rig, picture: int, *models: str, **fields: float) -> list[int]:
    """The jobs of a fan."""
    return [rig.admit(model, part=PicturePart(picture, together=models), **fields) for model in models]


def drive(rig: Rig, in_flight: int, begin: Iterator[Callable[[], object]], is_over: Callable[[], int]) -> None:
    """Begin one request after the other with so many under way, while everybody works; `is_over` counts those ended."""
    begun, more = 0, True
    for _ in range(20_000):
        over = is_over()
        while more and begun - over < in_flight:
            ask = next(begin, None)
            more = ask is not None
            if ask is not None:
                ask()
                begun += 1
        rig.step()
        busy = [worker for worker in rig.workers.values() if worker.leases]
        if not busy and not more:
            return
        rig.now += 0.001
        for worker in busy:
            rig.finish(worker)
    raise AssertionError("work without end")


@pytest.mark.parametrize("decoders", [1, 3])
def test_a_fan_is_decoded_once_though_one_of_its_models_has_few_rows(decoders: int) -> None:
    rig = Rig(plan("many", rows=34), plan("few", rows=4, fixed=1))
    crew(rig, "many", "few")
    for _ in range(decoders - 1):
        rig.worker("decode")
    pictures = range(1, 101)
    asks = iter([lambda picture=picture: fan(rig, picture, "many", "few") for picture in pictures])
    drive(rig, 32, asks, lambda: sum(1 for job in rig.answered if job % 2 == 0))
    assert rig.decodes == dict.fromkeys(pictures, 1)
    rig.check_drained()


def test_the_first_in_order_goes_alone_rather_than_give_its_row_away() -> None:
    rig = Rig(plan("many"), plan("few", rows=1), kept=1)
    _, decoder = crew(rig, "many", "few")
    fan(rig, 1, "many", "few")
    first, second = fan(rig, 2, "many", "few")
    rig.step()
    let_work(rig, decoder)
    assert sorted(rig.decoded_order) == [1, 2]  # the second fan waits for a row, and nobody else does
    alone = rig.admit("many")
    rig.step()
    let_work(rig, decoder)
    assert rig.decoded_order[2:] == [first, alone]
    rig.run_dry()
    assert rig.answered[second] == 1
    assert rig.decodes == {1: 1, 2: 1}  # the worker kept it for the half that had to wait
    rig.check_drained()


def test_fans_of_other_models_go_on() -> None:
    rig = Rig(plan("many"), plan("few", rows=1), plan("third"))
    _, decoder = crew(rig, "many", "few", "third")
    fan(rig, 1, "many", "few")
    held = fan(rig, 2, "many", "few")
    others = fan(rig, 3, "third", "many")
    rig.step()
    let_work(rig, decoder)
    assert set(others) <= set(rig.decoded_order)
    assert not set(held) & set(rig.decoded_order)
    rig.run_dry()
    assert rig.decodes == {1: 1, 2: 1, 3: 1}
    rig.check_drained()


def test_a_part_is_answered_in_time_though_the_other_model_stands_still() -> None:
    rig = Rig(plan("many"), plan("few", rows=1))
    crew(rig, "many", "few")
    stuck = next(worker for worker in rig.workers.values() if worker.model == "few")
    fan(rig, 1, "many", "few", timeout=100.0)
    first, second = fan(rig, 2, "many", "few", timeout=2.0)
    for _ in range(60):
        rig.step()
        for worker in rig.workers.values():
            if worker is not stuck and worker.leases:
                rig.finish(worker)
        rig.pass_time(0.05)
    assert rig.answered[first] == 1
    assert codes(rig) == {second: "DEADLINE_EXCEEDED"}
    rig.run_dry()
    rig.check_drained()


@pytest.mark.parametrize("decoders", [1, 3])
def test_a_chain_is_decoded_once_however_many_are_under_way(decoders: int) -> None:
    rig = Rig(plan("root", rows=34, max_batch=4), plan("child", rows=34), kept=2)
    crew(rig, "root", "child")
    for _ in range(decoders - 1):
        rig.worker("decode")
    chains = Chains(rig)
    pictures = range(1, 101)
    drive(rig, 32, iter([lambda picture=picture: chains.ask(picture) for picture in pictures]), chains.ended)
    assert rig.decodes == dict.fromkeys(pictures, 1)
    rig.check_drained()


def test_larger_pictures_are_counted_as_what_they_are_at_once() -> None:
    rig = Rig(plan("root", rows=34, max_batch=2), plan("child", rows=34), kept=6)
    crew(rig, "root", "child")
    chains = Chains(rig)
    for size, pictures in ((1, range(1, 41)), (3, range(41, 81))):
        rig.picture_size = size
        drive(rig, 32, iter([lambda picture=picture: chains.ask(picture) for picture in pictures]), chains.ended)
    assert rig.decodes == dict.fromkeys(range(1, 81), 1)
    rig.check_drained()


def test_with_room_for_no_picture_chains_go_on_all_the_same() -> None:
    rig = Rig(plan("root"), plan("child"))
    crew(rig, "root", "child")
    chains = Chains(rig)
    drive(rig, 8, iter([lambda picture=picture: chains.ask(picture) for picture in range(1, 33)]), chains.ended)
    assert codes(rig) == {}
    rig.check_drained()


def test_who_wants_a_model_alone_does_not_wait_for_room_that_chains_wait_for() -> None:
    rig = Rig(plan("root"), kept=1)
    crew(rig, "root")
    roots = []
    for picture in (1, 2):
        roots.append(rig.admit("root", part=PicturePart(picture, None, CUTS)))
        rig.step()
        work(rig)
    assert set(rig.answered) == {roots[0]}  # something may still be cut out of the first picture
    alone = rig.admit("root")
    rig.step()
    work(rig)
    assert set(rig.answered) == {*roots, alone}
    for picture in (1, 2):
        rig.core.ledger.pictures.all_cut(picture)
    rig.check_drained()


@pytest.mark.parametrize("end", ["worker", "dispatcher", "gateway"])
def test_what_dies_takes_its_pictures_with_it(end: str) -> None:
    rig = Rig(plan("root"), plan("child"), kept=1)
    _, decoder = crew(rig, "root", "child")
    root = rig.admit("root", part=PicturePart(1, None, CUTS))
    rig.run_dry()
    assert (rig.answered[root], decoder.kept) == (1, {1: 1})
    if end == "worker":
        decoder = rig.replace(decoder)
        rig.core.ledger.pictures.all_cut(1)
    elif end == "gateway":
        rig.core.gateway_restarted()
    else:
        rig.restart()
        for worker in rig.workers.values():
            rig.announce(worker)
    assert not rig.core.ledger.pictures
    other = rig.admit("root", part=PicturePart(2, None, CUTS))
    rig.run_dry()
    assert (rig.answered[other], decoder.kept) == (1, {2: 1})
    rig.core.ledger.pictures.all_cut(2)
    rig.check_drained()


class Chains:
    """What the gateway does: once a picture is answered it sends the children, and says that these are all."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._roots: dict[int, int] = {}
        self._children: dict[int, list[int]] = {}

    def ask(self, picture: int) -> None:
        """The first job of a chain."""
        self._roots[self._rig.admit("root", part=PicturePart(picture, None, CUTS))] = picture

    def ended(self) -> int:
        """Send what is to be sent now; how many chains are over."""
        rig = self._rig
        for root in [root for root in self._roots if rig.answered[root]]:
            picture = self._roots.pop(root)
            crops = range(picture % 4)
            self._children[picture] = [rig.admit("child", part=PicturePart(picture, CROP)) for _ in crops]
            rig.core.ledger.pictures.all_cut(picture)
        return sum(all(rig.answered[child] for child in children) for children in self._children.values())


def let_work(rig: Rig, worker: FakeWorker) -> None:
    """One worker does all that it is given."""
    while worker.leases:
        rig.finish(worker)
        rig.step()


def work(rig: Rig) -> None:
    """Everybody does all that there is to do now; no time passes."""
    while busy := [worker for worker in rig.workers.values() if worker.leases]:
        for worker in busy:
            rig.finish(worker)
        rig.step()
