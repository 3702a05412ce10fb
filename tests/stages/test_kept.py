"""Decoded pictures that are kept: which, in how many bytes, and that a crop of one is that of the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_infer.config.sources import load_config
from parallel_infer.crops import Crop, PicturePart, Selection
from parallel_infer.errors import BadInput
from parallel_infer.ipc.messages import PayloadKind
from parallel_infer.supervisor.plan import make_plan
from stages.decode import Decode
from stages.geometry import Geometry
from stages.kept import KeptPictures
from stages.pictures import Picture


def picture(value: int, side: int = 10) -> Picture:
    return Picture(np.full((side, side, 3), value, np.uint8), Geometry(side, side, 1, 1, 0, 0))


def test_copies_are_kept_until_they_are_forgotten() -> None:
    kept = KeptPictures(2 * 300)
    first = picture(1)
    kept.put(1, first)
    first.frame[:] = 9  # the decoder uses its memory again
    found = kept.get(1)
    assert found is not None
    assert (found.frame == 1).all()
    assert kept.put(2, picture(2)) == 300
    assert kept.put(3, picture(3)) == 0  # those that are kept are needed sooner
    kept.forget([1, 7])
    assert kept.put(3, picture(3)) == 300
    assert [kept.get(number) is not None for number in (1, 2, 3)] == [False, True, True]
    kept.forget(None)
    assert [kept.get(number) is not None for number in (1, 2, 3)] == [False] * 3


def test_what_is_larger_than_all_there_is_is_not_kept() -> None:
    for kept in (KeptPictures(0), KeptPictures(299)):
        assert kept.put(1, picture(1)) == 0
        assert kept.get(1) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 12), st.booleans()), max_size=30))
def test_memory_stays_within_its_limit(steps: list[tuple[int, int, bool]]) -> None:
    kept, sizes = KeptPictures(700), dict[int, int]()
    for number, side, forget in steps:
        if forget:
            kept.forget([number])
            sizes.pop(number, None)
        elif number not in sizes and kept.put(number, picture(number, side)):
            sizes[number] = side * side * 3
        assert sum(sizes.values()) <= 700
        for known in sizes:
            found = kept.get(known)
            assert found is not None
            assert (found.frame == known).all()


@pytest.fixture(scope="module")
def plan() -> Any:
    (plan,) = make_plan(load_config({"models": ["m=zoo:classifier"]}, None, {})).models
    return plan


def test_jobs_of_one_picture_have_it_decoded_once(plan: Any, pictures: Path) -> None:
    """The bytes are there once only: whoever decoded again would read what is no picture."""
    encoded, gone = memoryview((pictures / "coffee.png").read_bytes()), memoryview(b"gone")
    decode = Decode({"max_pixels": 1_000_000, "formats": ["png"], "kept": 1 << 20})
    decode.add(plan)

    def row(payload: memoryview, part: PicturePart | None, keep: bool = False) -> np.ndarray:
        rows = {tensor.name: np.zeros(tensor.shape, tensor.dtype) for tensor in plan.spec.inputs}
        written = decode.decode(plan.key, PayloadKind.PICTURE, (), payload, b"\x80", rows, part, keep=keep)
        assert written.reused == (payload is gone)
        return next(iter(rows.values()))

    whole, crop = row(encoded, None), Crop(100.0, 50.0, 200.0, 300.0, 600, 400)
    assert np.array_equal(row(encoded, PicturePart(1, None, (Selection(9),)), keep=True), whole)
    assert np.array_equal(row(gone, PicturePart(1)), whole)  # right behind it
    other = memoryview((pictures / "chelsea.png").read_bytes())
    row(other, PicturePart(2))
    child = row(gone, PicturePart(1, crop))  # kept
    frame = cv2.imread(str(pictures / "coffee.png"))
    assert frame is not None
    by_hand = cv2.imencode(".png", frame[50:350, 100:300])[1].tobytes()
    assert np.array_equal(child, row(memoryview(by_hand), None))
    decode.forget([1])
    for number in (1, 2):
        with pytest.raises(BadInput):
            row(gone, PicturePart(number))


@pytest.mark.parametrize("fast", [("detector", "classifier"), ("classifier",)])
def test_fast_models_of_a_fan_share_a_decode(fast: tuple[str, ...], pictures: Path) -> None:
    """In a scale that has every pixel of both; where one of them is exact, both are."""
    plans = make_plan(load_config({"models": ["detector=zoo:detector", "classifier=zoo:classifier"]}, None, {})).models
    decode = Decode({"max_pixels": 10_000_000, "formats": ["jpeg"]})
    for one in plans:
        decode.add(msgspec.structs.replace(one, decode="fast" if one.name in fast else "exact"))
    frame = cv2.resize(cv2.imread(str(pictures / "coffee.png")), (2400, 1600))
    encoded = memoryview(cv2.imencode(".jpg", frame)[1].tobytes())
    geometries = []
    for one, payload in zip(plans, (encoded, memoryview(b"gone")), strict=True):
        rows = {tensor.name: np.zeros(tensor.shape, tensor.dtype) for tensor in one.spec.inputs}
        part = PicturePart(1, together=("classifier", "detector"))
        told = one.key, PayloadKind.PICTURE, (), payload, b"\x80", rows, part
        geometries.append(decode.decode(*told).geometry)
        assert next(iter(rows.values())).any()
    assert [(geometry.width, geometry.height) for geometry in geometries] == [(2400, 1600)] * 2
