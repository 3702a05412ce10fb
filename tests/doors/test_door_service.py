"""The inference of doors with a gateway that answers as it is told: what becomes of odd outputs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from parallel_infer.answers.answer import Answer
from parallel_infer.doors.model_view import ModelView, Port
from parallel_infer.doors.service import InferenceService, InferRequest, InferResponse, NamedTensor, Wanted
from parallel_infer.errors import BadInput


class Gateway:
    """Answers each row of a request with the next of `rows`."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = list(rows)
        dtype = self._rows[0].dtype.name
        self._view = ModelView(
            name="m",
            version=1,
            task="tensor",
            family="tensor",
            inputs=(Port("x", "float32", (-1,)),),
            outputs=(Port("y", dtype, (-1, -1)),),
        )

    async def find(self, name: str) -> tuple[ModelView, bool]:
        return self._view, False

    async def job(self, *_: Any) -> Answer:
        return Answer("tensor", "m", {"y": self._rows.pop(0)})

    async def together(self, jobs: Sequence[Any]) -> list[Answer]:
        return [await job for job in jobs]


def infer(rows: Sequence[Any], *outputs: Wanted, **parameters: Any) -> InferResponse:
    values = np.zeros(len(rows), np.float32)
    inputs = (NamedTensor("x", "FP32", values.shape, values),)
    request = InferRequest(model="m", inputs=inputs, outputs=outputs, parameters=parameters)
    return asyncio.run(InferenceService(Gateway(rows)).infer(request))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "dtype", "best"),
    [
        ([0, 7, 255, 1], "uint8", ["255.000000:2", "7.000000:1"]),
        ([-128, 127, 3, -4], "int8", ["127.000000:1", "3.000000:2"]),
        ([-(2**63), 5, 0, 6], "int64", ["6.000000:3", "5.000000:1"]),
        ([0, 2**63, 2, 3], "uint64", [f"{2.0**63:f}:1", "3.000000:3"]),
        ([False, True, False, True], "bool", ["1.000000:1", "1.000000:3"]),
        ([float("nan"), float("-inf"), 0.5, 0.25], "float16", ["0.500000:2", "0.250000:3"]),
    ],
)
def test_the_largest_elements_of_every_type_come_first(values: list[Any], dtype: str, best: list[str]) -> None:
    (output,) = infer([np.array(values, dtype)], Wanted("y", classification=2)).outputs
    assert output.data == [text.encode() for text in best]


def test_rows_whose_shapes_differ_are_refused_by_name() -> None:
    (output,) = infer([np.zeros(2, np.float32), np.ones(2, np.float32)]).outputs
    assert output.shape == (2, 2)
    with pytest.raises(BadInput, match=r"output 'y' differ in their shapes, \[2\] and \[3\]"):
        infer([np.zeros(2, np.float32), np.zeros(3, np.float32)])


@pytest.mark.parametrize("priority", [0.5, 1.5, "1.5", True, -1, "first"])
def test_a_priority_that_is_no_whole_number_is_refused_by_name(priority: Any) -> None:
    with pytest.raises(BadInput, match=r"parameter 'priority' is .*number"):
        infer([np.zeros(2, np.float32)], priority=priority)


@pytest.mark.parametrize("priority", [0, 1, 2.0, "3", 1000])
def test_a_priority_is_a_whole_number(priority: Any) -> None:
    assert infer([np.zeros(2, np.float32)], priority=priority).outputs[0].shape == (1, 2)
