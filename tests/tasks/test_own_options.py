"""A task of one's own may have any options: what decoding looks for is not asked of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import stages.decode
from parallel_infer.config.sources import load_config
from parallel_infer.ipc.messages import PayloadKind
from parallel_infer.supervisor.plan import make_plan
from stages.decode import Decode


class Unrelated(msgspec.Struct, frozen=True):
    limit: int = 3


class SameNames(msgspec.Struct, frozen=True):
    """Fields that mean something else here."""

    decode: bool = True
    color: tuple[str, ...] = ("red",)


@pytest.fixture(scope="module")
def plan() -> Any:
    (plan,) = make_plan(load_config({"models": ["m=zoo:classifier"]}, None, {})).models
    return plan


@pytest.mark.parametrize("options", [Unrelated(), SameNames(), None, {}], ids=lambda options: type(options).__name__)
@pytest.mark.parametrize("kind", [PayloadKind.PICTURE, PayloadKind.FRAME], ids=lambda kind: kind.name)
def test_pictures_are_decoded_whatever_the_options_are(
    plan: Any, pictures: Path, monkeypatch: pytest.MonkeyPatch, options: Any, kind: PayloadKind
) -> None:
    class Own:
        def options(self, encoded: bytes) -> Any:
            return options

    monkeypatch.setattr(stages.decode, "task_for", lambda spec: Own())
    decode = Decode({"max_pixels": 1_000_000, "formats": ["png"]})
    decode.add(plan)
    row = {tensor.name: np.zeros(tensor.shape, tensor.dtype) for tensor in plan.spec.inputs}
    frame = np.full((40, 30, 3), 100, np.uint8)
    payload = (pictures / "coffee.png").read_bytes() if kind is PayloadKind.PICTURE else frame.tobytes()
    tensors = () if kind is PayloadKind.PICTURE else (stages.decode.Tensor("", "uint8", frame.shape),)
    written = decode.decode(plan.key, kind, tensors, memoryview(payload), b"", row)
    assert any(array.any() for array in row.values())
    assert written.geometry.width > 0
