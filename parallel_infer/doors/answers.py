"""Answers as the outputs of `NAME.picture`: padded to the longest, one row a picture. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from parallel_infer.answers.answer import Answer
from parallel_infer.doors.model_view import Port

Array = npt.NDArray[Any]
Output = Array | list[bytes]
_encode = msgspec.json.Encoder().encode


def picture_outputs(ports: Sequence[Port], answers: Sequence[Answer]) -> dict[str, Output]:
    """The outputs `ports` of the pictures' answers, in order.

    Rows are padded to the longest answer, and have one place at least: scores 0, classes -1, all else 0. `answer` is
    each answer's result map as JSON, a list of texts.
    """
    places = max([1, *(len(answer) for answer in answers)])
    outputs: dict[str, Output] = {}
    for port in ports:
        if port.name == "answer":
            outputs[port.name] = [_encode(answer.to_dict()) for answer in answers]
        elif port.name == "num_detections":
            outputs[port.name] = np.array([[len(answer)] for answer in answers], np.int32)
        else:
            outputs[port.name] = _padded(port, answers, places)
    return outputs


def _padded(port: Port, answers: Sequence[Answer], places: int) -> Array:
    padded = np.full((len(answers), places, *port.shape[2:]), -1 if port.name == "classes" else 0, port.dtype)
    for row, answer in zip(padded, answers, strict=True):
        values = answer.arrays.get(port.name)
        if values is not None and len(answer):
            row[: len(answer)] = values
    return padded
